"""Scores by a judge: a language model that tells from an explanation which texts fit it, and which tokens."""
