"""SASC, "summarize and score" (Singh et al. 2023), and the methods that its steps can choose from, by the names in run files."""

READINGS = {
    "alone": "stages.sasc.readings:ALONE",
    "in_context": "stages.sasc.readings:IN_CONTEXT",
    "recorded": "stages.sasc.reading_recorded:METHOD",
}
"""As `sasc.reading` has it: a `Reading`."""

SUMMARISERS = {
    "embedded": "stages.sasc.summarise_embedded:METHOD",
    "language_model": "stages.sasc.summarise_language_model:METHOD",
}
"""As `sasc.explainer` has it: a `Method` that makes a `Summariser` from the section Sasc."""

SYNTHESIZERS = {
    "retrieved": "stages.sasc.texts_retrieved:METHOD",
    "language_model": "stages.sasc.texts_written:METHOD",
}
"""As `sasc.synthesizer` has it: a `Method` that makes a `Synthesizer` from the context of its stage."""
