"""The run file: its sections, how it is read and checked, and the text that describes it."""

from pipeline.config.language_model import Budget, LanguageModel
from pipeline.config.run_config import Corpus, Run, RunConfig, StageSection, with_sections
from pipeline.config.section import Count, Device, Positive, Section, Text
from pipeline.config.subject import BlackBox, Directions, SparseCoder, Subject

__all__ = [
    "BlackBox",
    "Budget",
    "Corpus",
    "Count",
    "Device",
    "Directions",
    "LanguageModel",
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
