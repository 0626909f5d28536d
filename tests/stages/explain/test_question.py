"""Asking about a unit: what is left out to fit, what is asked again, and what the candidates carry."""

import asyncio
from dataclasses import replace

import pytest

from pipeline.llm.engine import Completion, EngineError, Message, Refused, Request
from stages.asking import ATTEMPTS, Asker
from stages.explain.explain_units import Candidate, ExplanationError
from stages.explain.explanation_reply import Said
from stages.explain.question import Part, Question, ask, left_out, shapes
from tests.stages.explain.scripted import Reply, ScriptedEngine, says


def question(parts: tuple[Part, ...] = ()) -> Question:
    """Asks by the shown words alone; a reply can be used unless it is "no"."""
    return Question(
        "explain/test.v1",
        parts,
        lambda **lists: (Message("user", " ".join(word for words in lists.values() for word in words)),),
        lambda reply: Said("" if reply.text == "no" else reply.text, reply.finished),
        max_tokens=10,
        stop=("\n",),
        schema={"type": "object"},
    )


def candidates(engine: ScriptedEngine, wanted: int, parts: tuple[Part, ...] = ()) -> list[Candidate]:
    return asyncio.run(ask(Asker(engine), question(parts), wanted, seed=4))


PARTS = (Part("look-alike", ["l1", "l2"], "others"), Part("exemplar", ["e1", "e2", "e3"], "texts", least=1))


def test_one_request_asks_for_all_candidates() -> None:
    engine = ScriptedEngine(lambda request, number: f"reply {number}")
    found = candidates(engine, 3)
    assert [candidate.text for candidate in found] == ["reply 0", "reply 1", "reply 2"]
    (request,) = engine.asked
    assert (request.n, request.temperature, request.max_tokens, request.attempt) == (3, 1.0, 10, 0)
    assert (request.stop, request.schema) == (("\n",), {"type": "object"})


def test_a_candidate_says_what_was_asked_and_what_the_reply_was() -> None:
    found = candidates(ScriptedEngine(lambda request, number: f" reply {number}"), 2, PARTS)
    assert [(one.asked, one.reply) for one in found] == [("l1 l2 e1 e2 e3", f" reply {n}") for n in (0, 1)]
    assert Candidate("words").columns() | {"asked": "?"} == vars(Candidate("words")) | {
        "asked": "?",
        "reply": None,
        "dropped": None,
    }


def test_parts_shrink_one_after_the_other() -> None:
    assert list(shapes(PARTS)) == [(2, 3), (1, 3), (0, 3), (0, 2), (0, 1)]
    assert list(shapes((Part("token", range(25), "tokens", least=1, step=10),))) == [(25,), (15,), (5,), (1,)]
    assert list(shapes((Part("token", range(1), "tokens", least=1, step=10),))) == [(1,)]
    assert list(shapes((Part("exemplar", [], "texts"),))) == [(0,)]


def test_what_is_left_out_is_said_in_words() -> None:
    assert left_out(PARTS, (2, 3)) == ""
    assert left_out(PARTS, (1, 3)) == "1 look-alike"
    assert left_out(PARTS, (0, 2)) == "2 look-alikes, 1 exemplar"


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    ("context", "prompt", "dropped"),
    [
        (15, "l1 l2 e1 e2 e3", ""),
        (14, "l1 e1 e2 e3", "1 look-alike"),
        (12, "e1 e2", "2 look-alikes, 1 exemplar"),
        (11, "e1", "2 look-alikes, 2 exemplars"),
    ],
)
def test_the_longest_prompt_that_fits_is_asked_and_every_candidate_says_what_it_lacks(
    told: bool, context: int, prompt: str, dropped: str
) -> None:
    engine = ScriptedEngine(lambda request, number: f"reply {number}", context, told=told)
    found = candidates(engine, 2, PARTS)
    assert [request.messages[0].content for request in engine.asked] == [prompt]
    assert [candidate.dropped for candidate in found] == [dropped, dropped]


@pytest.mark.parametrize(
    ("told", "why"), [(True, "does not fit the model's context of 10 tokens"), (False, "is too long: 1 tokens")]
)
def test_a_unit_whose_smallest_prompt_does_not_fit_fails(told: bool, why: str) -> None:
    with pytest.raises(ExplanationError, match=f"a prompt with 1 exemplar alone {why}"):
        candidates(ScriptedEngine(says("yes"), 10, told=told), 2, PARTS)


def test_what_lacks_is_asked_for_again_with_another_seed_and_attempt() -> None:
    replies = [["no", "first", "no"], ["no", "second"], ["third"]]
    engine = ScriptedEngine(lambda request, number: replies[request][number])
    assert [candidate.text for candidate in candidates(engine, 3)] == ["first", "second", "third"]
    assert [(request.n, request.attempt) for request in engine.asked] == [(3, 0), (2, 1), (1, 2)]
    assert len({request.seed for request in engine.asked}) == 3


def test_after_a_bounded_number_of_requests_there_are_fewer_candidates_or_the_unit_fails() -> None:
    engine = ScriptedEngine(lambda request, number: "yes" if (request, number) == (0, 1) else "no")
    assert [candidate.text for candidate in candidates(engine, 3)] == ["yes"]
    assert [request.n for request in engine.asked] == [3, 2, 2]
    assert len({request.seed for request in engine.asked}) == ATTEMPTS
    with pytest.raises(ExplanationError, match="no usable reply in 3 requests; the last one was 'no'"):
        candidates(ScriptedEngine(says("no")), 1)


def test_the_same_words_are_one_candidate_and_the_counts_add_up() -> None:
    replies = [["no", "one two", "one two", "three four five"], ["six"]]
    engine = ScriptedEngine(lambda request, number: replies[request][number])
    found = candidates(engine, 4, PARTS)
    assert [candidate.text for candidate in found] == ["one two", "three four five", "six"]
    assert [candidate.prompt_tokens for candidate in found] == [5 + 5, 0, 0]
    assert [candidate.completion_tokens for candidate in found] == [1 + 2 + 2, 3, 1]
    assert {(candidate.model, candidate.prompt_id) for candidate in found} == {("scripted@1", "explain/test.v1")}


def _fails_from(first: int) -> Reply:
    replies = ["no", "yes"]
    return lambda request, number: replies[number] if request < first else EngineError("gave up after 7 tries")


def test_a_failed_request_fails_the_unit_unless_there_are_replies_already() -> None:
    with pytest.raises(ExplanationError, match="gave up after 7 tries"):
        candidates(ScriptedEngine(_fails_from(0)), 2)
    assert [candidate.text for candidate in candidates(ScriptedEngine(_fails_from(1)), 2)] == ["yes"]


def test_a_refusal_is_asked_again_and_fails_the_unit_only_if_it_stays() -> None:
    engine = ScriptedEngine(lambda request, number: Refused("refused: no", 40, 3) if request == 0 else "a good answer")
    (candidate,) = candidates(engine, 1, PARTS)
    assert (candidate.text, [request.attempt for request in engine.asked]) == ("a good answer", [0, 1])
    assert (candidate.prompt_tokens, candidate.completion_tokens) == (40 + 5, 3 + 3)
    with pytest.raises(ExplanationError, match="refused: no"):
        candidates(ScriptedEngine(lambda request, number: Refused("refused: no")), 1)


def test_a_unit_that_fails_says_what_was_spent_on_it() -> None:
    def last_fails(request: int, number: int) -> str | EngineError:
        return "no" if request < 2 else EngineError("gave up")

    for reply, spent in ((says("no"), (15, 6)), (last_fails, (10, 4)), (_fails_from(0), (0, 0))):
        with pytest.raises(ExplanationError) as caught:
            candidates(ScriptedEngine(reply), 2, PARTS)
        assert (caught.value.prompt_tokens, caught.value.completion_tokens) == spent


def test_seeds_differ_between_attempts_and_units_and_not_between_runs() -> None:
    def seeds(seed: int) -> list[int]:
        engine = ScriptedEngine(says("no"))
        with pytest.raises(ExplanationError):
            asyncio.run(ask(Asker(engine), question(), 1, seed))
        return [request.seed for request in engine.asked]

    assert seeds(1) == seeds(1)
    assert len({*seeds(1), *seeds(2)}) == 2 * ATTEMPTS


def test_an_explanation_that_the_token_limit_cut_off_is_used_only_where_no_whole_one_is_left() -> None:
    class Cutting(ScriptedEngine):
        """Cuts replies that end with a dash."""

        async def complete(self, request: Request) -> list[Completion]:
            return [replace(one, finished=not one.text.endswith("-")) for one in await super().complete(request)]

    replies = [["first -", "whole"], ["second"]]
    engine = Cutting(lambda request, number: replies[request][number])
    found = candidates(engine, 2)
    assert [(candidate.text, candidate.truncated) for candidate in found] == [("whole", False), ("second", False)]
    assert sum(candidate.completion_tokens for candidate in found) == 2 + 1 + 1
    engine = Cutting(says("never whole -"))
    assert [(candidate.text, candidate.truncated) for candidate in candidates(engine, 1)] == [("never whole -", True)]
    assert len(engine.asked) == ATTEMPTS
    engine = Cutting(lambda request, number: "whole" if (request, number) == (2, 0) else f"cut {request} {number} -")
    found = candidates(engine, 3)
    assert [(candidate.text, candidate.truncated) for candidate in found] == [
        ("whole", False), ("cut 0 0 -", True), ("cut 0 1 -", True),
    ]  # fmt: skip
