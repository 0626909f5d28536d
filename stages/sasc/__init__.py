"""Explain functions of texts: n-grams, what they share, texts for and against it (Singh et al. 2023)."""
