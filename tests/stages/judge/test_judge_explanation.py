"""The score of an explanation is how often a judge is right by it; a text without an answer counts as nothing."""

import asyncio
import re
from typing import Any

import numpy as np
import pytest

from pipeline.config.section import choice
from pipeline.llm.engine import EngineError, Request
from pipeline.prompts import Prompt
from stages.asking import Asker
from stages.judge import JUDGE_METHODS
from stages.judge.judge_explanation import judge_explanation
from stages.judge.judge_units import JUDGE
from tests.stages.judge.units import KEYS, coloured, config
from tests.stages.simulate.doubles import DoubleEngine


def by_colour(request: Request) -> str:
    """A judge that takes explanations at their word: a text, or its marked token, has the word that is explained."""
    asked = request.messages[-1].content
    word = asked.splitlines()[0].split()[-1]
    texts = re.findall(r"^\d+\. (.*)$", asked, re.MULTILINE)
    shown = [re.findall("«(.*?)»", text) if "«" in asked else [text] for text in texts]
    return "\n".join(
        f"{n}: {'yes' if any(word in part for part in parts) else 'no'}" for n, parts in enumerate(shown, 1)
    )


class Given:
    """The context of a stage as far as methods of judging take anything from it."""

    def __init__(self, settings: Any) -> None:
        self.config = settings


def judged(
    method: str, text: str, write: Any = by_colour, each: int = 10, **judge: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    others = [KEYS | {"index": index, "text": f"the word {word}"} for index, word in ((5, "purple"), (6, "seven"))]
    settings, found = config(methods=[method], **judge), choice(JUDGE_METHODS, method)
    scorer = found.build(Given(settings), Asker(DoubleEngine(write=write)), [Prompt(name) for name in found.prompts])
    return asyncio.run(judge_explanation(KEYS | {"text": text}, others, coloured(each), scorer, settings))


@pytest.mark.parametrize("method", ["detection", "fuzzing"])
def test_a_right_explanation_is_told_from_a_wrong_one(method: str) -> None:
    rows, score = judged(method, "the word red")
    assert (score["balanced_accuracy"], score["f1"], score["status"]) == (1.0, 1.0, "ok")
    assert (score["example_score"], score["chance"], score["auroc"]) == (1.0, 0.5, 1.0)
    assert (score["balanced_accuracy_shuffled"], score["example_score_shuffled"], score["n_shuffled"]) == (0.5, 0.5, 2)
    assert judged(method, "the word blue")[1]["balanced_accuracy"] == 0.5
    assert {(row["control"], row["source"]) for row in rows} == {("", 3), ("shuffled", 5), ("shuffled", 6)}
    own = [row for row in rows if not row["control"]]
    assert [row["says"] for row in own] == [row["fits"] for row in own]
    assert score["n_fitting"] == score["tp"] == sum(row["fits"] for row in own) == 10
    assert score["n_other"] == score["tn"] == sum(not row["fits"] for row in own) == 10
    assert score["deciles"] == [{"decile": decile, "n": 1, "yes": 1} for decile in range(1, 11)]


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
    assert score["n_failed"] == len(failed)
    assert "left out" in score["error"]


def test_a_judge_that_never_answers_gives_no_score() -> None:
    _, score = judged("detection", "the word red", lambda _: EngineError("no luck"))
    assert score["status"] == "failed"
    assert np.isnan(score["balanced_accuracy"])
    assert (score["error"], score["n_failed"]) == ("no luck", 20)


def odd_one_out(request: Request) -> str:
    """A judge that picks the text whose mark is not red."""
    marked = re.findall(r"^(\d+)\. .*«(.*?)»", request.messages[-1].content, re.MULTILINE)
    return next(number for number, word in marked if word != "red")


def test_the_intruder_is_found_without_an_explanation_and_by_chance_in_a_fifth_of_the_questions() -> None:
    rows, score = judged("intruder", "whatever it is", odd_one_out, texts=5)
    assert (score["example_score"], score["accuracy"], score["chance"]) == (1.0, 1.0, 0.2)
    assert (len(rows), score["tn"], score["fp"], score["n_shuffled"]) == (10, 10, 0, 0)
    assert all(row["control"] == "" and row["seq_id"] >= 10 for row in rows), (
        "one question for each text that does not fit"
    )
    _, always = judged("intruder", "", lambda _: "2", each=200, texts=5)
    assert 0.1 < always["accuracy"] < 0.3
    assert np.isnan(always["accuracy_always_yes"]), "there is no such judge"


@pytest.mark.parametrize("reply", ["none of them", "2 or 3", "7", ""])
def test_a_reply_that_names_no_text_is_no_answer(reply: str) -> None:
    _, score = judged("intruder", "", lambda _: reply, texts=5)
    assert (score["status"], score["n_failed"]) == ("failed", 10)
    assert "names none of the texts" in score["error"]


def test_without_a_method_nothing_is_planned() -> None:
    assert JUDGE.methods(config(methods=[])) == []
