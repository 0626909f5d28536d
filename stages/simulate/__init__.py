"""Expected activations from explanations."""
