"""Scores of explanations: how well the simulated activations match the true ones."""

SCORERS = {
    "correlation": "stages.score.scorers:CORRELATION",
    "corpus": "stages.score.corpus_scores:CORPUS",
    "calibrated": "stages.score.scorers:CALIBRATED",
    "controls": "stages.score.scorers:CONTROLS",
}
"""By name: a `Scorer`, which brings columns of the scores table, in this order."""
