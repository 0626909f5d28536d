"""Scores of explanations: how well the simulated activations match the true ones."""

SCORERS = {
    "correlation": "stages.score.correlation:SCORER",
    "calibrated": "stages.score.calibrated:SCORER",
    "controls": "stages.score.controls:SCORER",
}
"""By name: a `Scorer`, which brings columns of the scores table, in this order."""
