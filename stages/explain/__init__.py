"""Explanations of units from their evidence."""
