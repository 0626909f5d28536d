"""The score of an explanation is how often a judge is right by it; a text without an answer counts as nothing."""

import asyncio
import re
from typing import Any

import numpy as np
import pytest

from pipeline.config.run_file import parse_config
from pipeline.llm.engine import EngineError, Request
from stages.asking import Asker
from stages.evidence import Exemplar
from stages.judge.judge_units import JUDGE, judge_explanation
from stages.settings import SECTIONS
from tests.stages.simulate.doubles import DoubleEngine

KEYS = {"module": "layers.0.mlp", "index": 3, "polarity": "+", "explainer": "statistics", "candidate": 0}


def config(**judge: Any) -> Any:
    judge = {"methods": ["detection", "fuzzing"], "engine": {"model": "m"}, "texts": 3, "controls": 2} | judge
    values: dict[str, Any] = {
        "run": {"name": "r"}, "subject": {"model": "m", "modules": ["layers.0.mlp"]}, "corpus": {"source": "t.txt"},
        "judge": judge,
    }  # fmt: skip
    return parse_config(values, "test.toml", SECTIONS)


def exemplars() -> list[Exemplar]:
    found = []
    for seq_id in range(20):
        top = seq_id < 10
        tokens = ["the", " red" if top else " old", " house", f" {seq_id}", " stood", " there"]
        values = np.asarray([0, 5 if top else 0, 0, 0, 0, 0], np.float32)
        found.append(Exemplar(seq_id, "top" if top else "random", tokens, values, "report"))
    return found


def by_colour(request: Request) -> str:
    """A judge that takes explanations at their word: a text, or its marked token, has the word that is explained."""
    asked = request.messages[-1].content
    word = asked.splitlines()[0].split()[-1]
    texts = re.findall(r"^\d+\. (.*)$", asked, re.MULTILINE)
    shown = [re.findall("«(.*?)»", text) if "«" in asked else [text] for text in texts]
    return "\n".join(
        f"{n}: {'yes' if any(word in part for part in parts) else 'no'}" for n, parts in enumerate(shown, 1)
    )


def judged(method: str, text: str, write: Any = by_colour, **judge: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    others = [KEYS | {"index": index, "text": f"the word {word}"} for index, word in ((5, "purple"), (6, "seven"))]
    row = KEYS | {"text": text}
    work = judge_explanation(
        row, others, exemplars(), Asker(DoubleEngine(write=write)), config(methods=[method], **judge)
    )
    return asyncio.run(work)


@pytest.mark.parametrize("method", ["detection", "fuzzing"])
def test_a_right_explanation_is_told_from_a_wrong_one(method: str) -> None:
    rows, score = judged(method, "the word red")
    assert (score["balanced_accuracy"], score["f1"], score["status"]) == (1.0, 1.0, "ok")
    assert (score["balanced_accuracy_shuffled"], score["n_shuffled"]) == (0.5, 2)
    assert judged(method, "the word blue")[1]["balanced_accuracy"] == 0.5
    assert {(row["control"], row["source"]) for row in rows} == {("", 3), ("shuffled", 5), ("shuffled", 6)}
    own = [row for row in rows if not row["control"]]
    assert [row["says"] for row in own] == [row["fits"] for row in own]
    assert score["n_fitting"] == sum(row["fits"] for row in own)
    assert score["n_other"] == sum(not row["fits"] for row in own)


def test_the_order_of_the_texts_does_not_give_the_answers_away() -> None:
    rows, _ = judged("detection", "the word red")
    truths = [row["fits"] for row in rows if not row["control"]]
    assert truths != sorted(truths)
    assert truths != sorted(truths, reverse=True)


def test_texts_without_an_answer_are_left_out_and_named() -> None:
    def write(request: Request) -> Any:
        return EngineError("no luck") if " 7 " in request.messages[-1].content else by_colour(request)

    rows, score = judged("detection", "the word red", write)
    failed = [row for row in rows if row["status"] == "failed" and not row["control"]]
    assert 1 <= len(failed) <= 3
    assert all(row["says"] is None and "no luck" in row["error"] for row in failed)
    assert score["balanced_accuracy"] == 1.0
    assert score["n_fitting"] + score["n_other"] == 20 - len(failed)
    assert "left out" in score["error"]


def test_a_judge_that_never_answers_gives_no_score() -> None:
    _, score = judged("detection", "the word red", lambda _: EngineError("no luck"))
    assert score["status"] == "failed"
    assert np.isnan(score["balanced_accuracy"])
    assert score["error"] == "no luck"


def test_without_a_method_nothing_is_planned() -> None:
    assert JUDGE.methods(config(methods=[])) == []
