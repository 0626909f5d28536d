"""The stages of the pipeline, in the order of the data flow."""

from pipeline.execution.stage import Stage
from pipeline.schemas import TableSchema
from stages.corpus import CORPUS
from stages.explain.explain_units import EXPLAIN
from stages.judge.judge_report import with_examples
from stages.judge.judge_units import JUDGE
from stages.judge.text_choice import TEXTS
from stages.record.details import DETAIL
from stages.record.merge import MERGE
from stages.record.negatives import EMBED, NEGATIVE
from stages.record.scan import SCAN
from stages.record.weights import WEIGHTS
from stages.sasc.explain_ngrams import EXPLAIN as EXPLAIN_SASC
from stages.sasc.ngram_list import LIST
from stages.sasc.ngram_merge import MERGE as MERGE_NGRAMS
from stages.sasc.ngram_scan import SCAN as SCAN_NGRAMS
from stages.sasc.sasc_report import REPORT as SASC_REPORT
from stages.sasc.score_themes import SCORE as SCORE_SASC
from stages.sasc.synthesize import SYNTHESIZE
from stages.score.run_report import REPORT as SCORE_REPORT
from stages.score.score_units import SCORE
from stages.simulate.simulate_units import SIMULATE

_RECORD = (CORPUS, SCAN, MERGE, WEIGHTS, DETAIL, EMBED, NEGATIVE)
_SIMULATION = (EXPLAIN, SIMULATE, SCORE, TEXTS, JUDGE)
_SASC = (LIST, SCAN_NGRAMS, MERGE_NGRAMS, EXPLAIN_SASC, SYNTHESIZE, SCORE_SASC)

STAGES: dict[str, Stage] = {stage.name: stage for stage in (*_RECORD, *_SIMULATION, *_SASC)}
"""By name; `python -m pipeline GROUP` runs those whose name starts with GROUP."""

TABLES: dict[str, TableSchema] = {
    table.name: table for stage in STAGES.values() for table in stage.writes if not table.folder
}
"""The tables that people query, by name."""

REPORTS = (with_examples(SCORE_REPORT), SASC_REPORT)
"""What finished runs say, by method, the default one first."""
