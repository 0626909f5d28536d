"""A sample of units with their exemplars: what the stages read that explain, simulate and judge."""

from pipeline.config import RunConfig
from pipeline.execution.runner import Stages
from pipeline.execution.stage import Stage
from pipeline.schemas import CORPUS, EXEMPLARS, EXPLANATIONS, NEGATIVES, UNITS
from pipeline.subjects.activation_sources import describe_modules
from stages.estimate.inputs import (
    all_units,
    keep_recorded,
    make_corpus,
    make_evidence,
    make_explanations,
    make_negatives,
    make_scores,
)
from stages.estimate.sample import Sample, SampleTables, drawn, planned_units
from stages.score.score_units import SCORES
from stages.settings import Record


def sample_with_evidence(
    stage: Stage, config: RunConfig, stages: Stages, finished: set[str], tables: SampleTables
) -> Sample:
    """Units of a stage; what it reads of them and is not finished is put into the tables.

    Args:
        finished: names of the tables that are whole.
    """
    inputs = _evidence_tables(config, tables, finished)
    units = planned_units(stage, config, tables)
    sample = drawn(config, units)
    if EXEMPLARS.name in finished:
        keep_recorded(tables, sample)
    else:
        make_evidence(config, tables, sample)
    if NEGATIVES.name not in finished and config[Record].negatives:
        make_negatives(config, tables, sample)
        if EXEMPLARS.name in finished:
            inputs += " and stand-in negatives"
    read = {table.name for name in stage.upstream(config) for table in stages[name].writes}
    if EXPLANATIONS.name in read - finished:
        make_explanations(config, tables, units, sample)
        inputs += " and stand-in explanations"
    if SCORES.name in read - finished:
        make_scores(config, tables, units, sample)
        inputs += " and stand-in explanations"
    return Sample(units, sample, inputs)


def _evidence_tables(config: RunConfig, tables: SampleTables, finished: set[str]) -> str:
    """Put in the tables that say which units and sequences there are, where they are missing; the words for it all."""
    if {UNITS.name, EXEMPLARS.name} <= finished:
        return "recorded evidence"
    tables.replaced[UNITS.name] = all_units({name: units.width for name, units in describe_modules(config).items()})
    if CORPUS.name in finished:
        return "sequences of the corpus with made-up activations (nothing is recorded yet)"
    tables.replaced[CORPUS.name] = make_corpus(config)
    return "stand-in texts with made-up activations (there is no corpus yet)"
