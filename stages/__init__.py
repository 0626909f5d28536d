"""The stages of the pipeline, in the order of the data flow."""

from pipeline.stage import Stage
from stages.corpus import CORPUS
from stages.explain.stage import EXPLAIN
from stages.judge.stage import JUDGE
from stages.record.details import DETAIL
from stages.record.embeddings import EMBED
from stages.record.merge import MERGE
from stages.record.negatives import NEGATIVE
from stages.record.scan import SCAN
from stages.record.weights import WEIGHTS
from stages.score.stage import SCORE
from stages.simulate.stage import SIMULATE

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (CORPUS, SCAN, MERGE, WEIGHTS, DETAIL, EMBED, NEGATIVE, EXPLAIN, SIMULATE, SCORE, JUDGE)
}
"""By name; `python -m pipeline GROUP` runs those whose name starts with GROUP."""
