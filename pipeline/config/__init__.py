"""The run file: its sections, how it is read and checked, and the text that describes it."""

from pipeline.config.run_config import Corpus, MethodsSection, Run, RunConfig, StageSection, with_sections
from pipeline.config.section import Budget, Count, Device, LanguageModel, Names, Positive, Section, Text
from pipeline.config.subject import BlackBox, Directions, SparseCoder, Subject

__all__ = [
    "BlackBox",
    "Budget",
    "Corpus",
    "Count",
    "Device",
    "Directions",
    "LanguageModel",
    "MethodsSection",
    "Names",
    "Positive",
    "Run",
    "RunConfig",
    "Section",
    "SparseCoder",
    "StageSection",
    "Subject",
    "Text",
    "with_sections",
]
