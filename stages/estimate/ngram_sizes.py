"""How many n-grams and texts the functions of a SASC run are asked about, from the run file and configurations alone."""

from dataclasses import dataclass

from pipeline.config import RunConfig
from pipeline.subjects.activation_sources import describe_modules
from pipeline.subjects.identity import BLACK_BOX, needs_model
from stages.estimate.ngram_sample import units_to_explain
from stages.settings import Record, Sasc


@dataclass(frozen=True)
class NgramSizes:
    """Upper bounds."""

    units: int
    """Units to explain, each polarity for itself, and null units."""
    ngrams: int
    """N-grams that are listed."""
    by_black_boxes: int
    """N-grams that black boxes evaluate, added up."""
    by_subject: int
    """N-grams that the subject evaluates, for all of its modules at once."""
    corpus_passes: int
    """Forward passes of the subject over batches of the corpus, where n-grams are read in context: as many for each module,
    each up to its layer."""
    texts: int
    """Texts for and against explanations, each evaluated by its unit's module."""


def ngram_sizes(config: RunConfig) -> NgramSizes:
    """The sizes of a run by the method sasc.

    Raises:
        UserError: the subject or one of its modules does not exist.
    """
    modules, sasc = describe_modules(config), config[Sasc]
    units = units_to_explain(config, modules)
    asked = {module for module, _, _ in units}
    reading = sasc.reading if needs_model(asked) else ""
    batches = -(-config.corpus.max_sequences // config[Record].batch_size)
    return NgramSizes(
        units=len(units),
        ngrams=sasc.max_ngrams,
        by_black_boxes=sasc.max_ngrams * sum(module.startswith(BLACK_BOX) for module in asked),
        by_subject=sasc.max_ngrams if reading == "alone" else 0,
        corpus_passes=batches * sum(needs_model([one]) for one in asked) if reading == "in_context" else 0,
        texts=len(units) * sasc.candidates * 2 * sasc.texts,
    )
