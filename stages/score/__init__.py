"""Scores of explanations: how well the simulated activations match the true ones."""

SCORERS = {
    "correlation": "stages.score.correlation:CORRELATION",
    "calibrated": "stages.score.correlation:CALIBRATED",
    "controls": "stages.score.correlation:CONTROLS",
}
"""By name: a `Scorer`, which brings columns of the scores table, in this order."""
