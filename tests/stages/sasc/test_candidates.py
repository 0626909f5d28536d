"""Draws of n-grams, and the different explanations that they lead to."""

import asyncio
import itertools
from collections.abc import Sequence

import numpy as np

from pipeline.config import Sasc
from stages.explain.base import Candidate
from stages.sasc.candidates import draws, themes
from stages.sasc.summarise import LanguageModelSummariser
from tests.stages.explain.scripted import ScriptedEngine, says

NGRAMS = [f"n-gram {number}" for number in range(75)]
SASC = Sasc(kept=75, top=50, shown=30, candidates=3)


class Repeats:
    """Says one of the given texts after the other, over and over."""

    name = "repeats"

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts, self.asked = texts, 0

    async def explain(self, drawn: Sequence[str], kept: Sequence[tuple[str, float]], seed: int) -> Candidate:
        self.asked += 1
        return Candidate(self.texts[(self.asked - 1) % len(self.texts)], prompt_tokens=10, completion_tokens=1)

    async def summarise(self, drawn: Sequence[str], kept: Sequence[tuple[str, float]], seed: int) -> str:
        return (await self.explain(drawn, kept, seed)).text


def test_a_draw_is_30_of_the_top_50_in_the_order_of_their_rank() -> None:
    for drawn in itertools.islice(draws(NGRAMS, SASC, np.random.default_rng(0)), 20):
        places = [NGRAMS.index(text) for text in drawn]
        assert len(places) == 30
        assert places == sorted(places)
        assert max(places) < 50


def test_draws_differ_and_reach_all_of_the_top() -> None:
    drawn = list(itertools.islice(draws(NGRAMS, SASC, np.random.default_rng(0)), 20))
    assert len(set(map(tuple, drawn))) == 20
    assert set().union(*drawn) == set(NGRAMS[:50])


def test_few_ngrams_are_drawn_all() -> None:
    assert next(draws(NGRAMS[:7], SASC, np.random.default_rng(0))) == NGRAMS[:7]


def test_an_explanation_that_says_the_same_is_no_candidate_and_its_tokens_are_counted() -> None:
    kept = [(text, 1.0) for text in NGRAMS]
    found = asyncio.run(themes(Repeats(["The sea", "the sea.", "War", "Food"]), kept, SASC, 0))
    assert [theme.candidate.text for theme in found] == ["The sea", "War", "Food"]
    assert [theme.candidate.prompt_tokens for theme in found] == [20, 10, 10]
    assert all(len(theme.drawn) == 30 for theme in found)


def test_draws_end_where_nothing_new_is_said() -> None:
    summariser = Repeats(["the sea"])
    assert len(asyncio.run(themes(summariser, [(text, 1.0) for text in NGRAMS], SASC, 0))) == 1
    assert summariser.asked == 12


def test_ngrams_are_shown_on_a_line_each_and_once() -> None:
    engine = ScriptedEngine(says("the sea"))
    drawn = [" sea", "sea", "a\r\nb", "\n", "می\u200cرود", "\u2028x\tz"]
    asyncio.run(LanguageModelSummariser(engine).explain(drawn, [], 0))
    lines = [line.removeprefix("- ") for line in engine.question.split("\n") if line.startswith("- ")]
    assert lines == ["sea", "a\\r\\nb", "'\\n'", "می\u200cرود", "x\\tz"]
