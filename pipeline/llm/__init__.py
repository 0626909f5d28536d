"""Language models that explain and simulate."""
