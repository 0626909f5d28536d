"""Explanations of units from their evidence."""

EXPLAINERS = {
    "statistics": "stages.explain.word_statistics:METHOD",
    "token_activation": "stages.explain.shown_tokens:TOKEN_ACTIVATION",
    "token_space": "stages.explain.shown_tokens:TOKEN_SPACE",
    "max_activation": "stages.explain.marked_texts:MAX_ACTIVATION",
    "contrastive": "stages.explain.marked_texts:CONTRASTIVE",
}
"""By name, as `explain.explainer` has it: a `Method` that makes an `Explainer`."""
HUMAN = "human"
"""The explainer of explanations that people write in a run's pages."""
