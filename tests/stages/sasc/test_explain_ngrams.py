"""Draws of n-grams, and the different explanations that they lead to."""

import asyncio
import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.prompts import Prompt
from stages.asking import Asker
from stages.explain.explain_units import Candidate, ExplanationError
from stages.sasc import Sasc
from stages.sasc.by_language_model import SUMMARISE, LanguageModelSummariser
from stages.sasc.explain_ngrams import draws, themes
from tests.stages.explain.scripted import ScriptedEngine, says

NGRAMS = [f"n-gram {number}" for number in range(75)]
SASC = Sasc(kept=75, top=50, shown=30, candidates=3)


class Repeats:
    """Says one of the given texts after the other, over and over; where it is empty, nothing can be said."""

    name = "repeats"

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts, self.asked = texts, 0

    async def explain(self, drawn: Sequence[str], kept: Sequence[tuple[str, float]], seed: int) -> Candidate:
        self.asked += 1
        text = self.texts[(self.asked - 1) % len(self.texts)]
        if not text:
            raise ExplanationError(f"draw {self.asked} says nothing", 7, 3)
        return Candidate(text, prompt_tokens=10, completion_tokens=1)


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


def explained(summariser: Repeats) -> list[tuple[str, int, int]]:
    """The explanations with their tokens."""
    found = asyncio.run(themes(summariser, [(text, 1.0) for text in NGRAMS], SASC, 0))
    return [(one.candidate.text, one.candidate.prompt_tokens, one.candidate.completion_tokens) for one in found]


def test_a_draw_of_which_nothing_can_be_said_costs_its_tokens_and_no_other_candidate() -> None:
    assert explained(Repeats(["", "the sea", "war", "", "food"])) == [
        ("the sea", 24, 7),
        ("war", 10, 1),
        ("food", 10, 1),
    ]


def test_after_three_such_draws_what_is_there_has_to_do() -> None:
    summariser = Repeats(["the sea", "", ""])
    assert explained(summariser) == [("the sea", 41, 11)]
    assert summariser.asked == 5


def test_where_nothing_can_be_said_of_any_draw_the_error_carries_what_all_of_them_took() -> None:
    summariser = Repeats([""])
    with pytest.raises(ExplanationError, match="draw 3 says nothing") as raised:
        explained(summariser)
    assert (raised.value.prompt_tokens, raised.value.completion_tokens, summariser.asked) == (21, 9, 3)


def test_unless_set_30_of_the_top_50_of_75_ngrams_are_shown_for_each_of_5_candidates() -> None:
    sasc = Sasc()
    assert (sasc.kept, sasc.top, sasc.shown, sasc.candidates) == (75, 50, 30, 5)


def test_ngrams_are_shown_on_a_line_each_and_once() -> None:
    engine = ScriptedEngine(says("the sea"))
    drawn = [" sea", "sea", "a\r\nb", "\n", "می\u200cرود", "\u2028x\tz"]
    asyncio.run(LanguageModelSummariser(Asker(engine), Prompt(SUMMARISE)).explain(drawn, [], 0))
    lines = [line.removeprefix("- ") for line in engine.question.split("\n") if line.startswith("- ")]
    assert lines == ["sea", "a\\r\\nb", "'\\n'", "می\u200cرود", "x\\tz"]
