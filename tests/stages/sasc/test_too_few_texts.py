"""Why there are too few texts for a score is told with the score that there is not."""

import asyncio
from pathlib import Path

import pytest

from pipeline.llm.engine import EngineError
from stages.sasc.explained import Row
from stages.sasc.score_themes import score_unit
from stages.sasc.synthesize import unit_rows, write_texts
from stages.sasc.texts_written import LanguageModelSynthesizer
from stages.settings import Sasc
from tests.stages.explain.scripted import Reply, ScriptedEngine
from tests.stages.sasc.small_run import GOOD, run_file

UNIT: Row = {"module": "black_box:f", "index": 2, "polarity": "+", "sigma": 1.0}
THEME: Row = UNIT | {"explainer": "told", "candidate": 0, "text": "ships", "status": "ok", "error": None}
CONFIG = run_file(Path("anywhere"), "few", [GOOD], texts=20, bootstrap=100)


def texts_by(reply: Reply) -> list[Row]:
    """Rows of the texts that a language model writes by a script, each with a response."""
    texts = asyncio.run(write_texts(LanguageModelSynthesizer(ScriptedEngine(reply)), THEME, CONFIG))
    rows = unit_rows([(THEME, texts)], CONFIG[Sasc].texts)
    return [row | ({} if row["text"] is None else {"response": float(len(row["text"]))}) for row in rows]


def gone_after(count: int) -> Reply:
    """Two requests of each kind are made at once; the first of each is answered with so many texts, then the server is gone."""

    def reply(request: int, _: int) -> str | EngineError:
        if request not in (0, 2):
            return EngineError("the server is gone")
        return "\n".join(f"{n}. The ship {chr(97 + request)} sailed to {chr(97 + n)}." for n in range(1, count + 1))

    return reply


@pytest.mark.parametrize(("count", "half"), [(3, "report"), (2, "select")])
def test_a_score_without_enough_texts_says_why_there_are_too_few(count: int, half: str) -> None:
    texts = texts_by(gone_after(count))
    assert [row["error"] for row in texts] == 2 * ["the server is gone", *[None] * (count - 1)]
    assert {row["status"] for row in texts} == {"ok"}
    (row,) = score_unit(CONFIG, UNIT, [THEME], texts)
    assert row["status"] == "undefined"
    assert row["error"] == f"there are too few texts for and against it in the {half} half; the server is gone"


def test_a_score_without_any_text_of_a_kind_fails_of_its_reason() -> None:
    (row,) = score_unit(CONFIG, UNIT, [THEME], texts_by(gone_after(0)))
    assert (row["status"], row["error"]) == ("failed", "the server is gone")


def test_fewer_texts_than_were_wanted_are_no_fault_of_a_score() -> None:
    texts = texts_by(gone_after(10))
    assert len([row for row in texts if row["error"]]) == 2
    (row,) = score_unit(CONFIG, UNIT, [THEME], texts)
    assert (row["status"], row["error"], row["n_relevant"]) == ("ok", None, 5)
