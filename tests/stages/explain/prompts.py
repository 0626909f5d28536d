"""The prompts whose replies are sentences or JSON."""

PROMPTS = (
    "explain/max_activation.v1", "explain/max_activation.v2", "explain/contrastive.v1", "explain/contrastive.v2",
    "explain/token_space.v1",
)  # fmt: skip
