"""SASC, "summarize and score" (Singh et al. 2023), and the methods that each of its steps can choose from.

A new method is a module and its line in a table here; stages/sasc/methods.py says what such a module holds.
"""

READINGS = {
    "alone": "stages.sasc.reading_alone",
    "in_context": "stages.sasc.reading_in_context",
    "recorded": "stages.sasc.reading_recorded",
}
"""How units with an activation a token are read on n-grams."""

SUMMARISERS = {
    "embedded": "stages.sasc.summarise_embedded",
    "language_model": "stages.sasc.summarise_language_model",
}
"""Who says what n-grams share."""

SYNTHESIZERS = {
    "retrieved": "stages.sasc.texts_retrieved",
    "language_model": "stages.sasc.texts_written",
}
"""Where texts for and against an explanation come from."""
