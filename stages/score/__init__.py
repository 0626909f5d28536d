"""Scores of explanations: how well the simulated activations match the true ones."""
