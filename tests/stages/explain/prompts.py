"""The prompts whose replies are sentences or JSON."""

PROMPTS = ("explain/max_activation.v1", "explain/contrastive.v1", "explain/token_space.v1")
