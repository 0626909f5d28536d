"""Texts that a language model writes, and passages of the corpus."""

import asyncio
import zlib
from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from pipeline.llm.engine import Completion, EngineError, Refused, Request
from pipeline.subjects.embedder import Embedder
from stages.sasc.texts_retrieved import RetrievedSynthesizer, cut_passages
from tests.stages.explain.scripted import ScriptedEngine
from tests.stages.sasc.small_run import writer


def numbered(first: int, count: int, word: str) -> str:
    texts = (
        f"{n}. The {word} was seen by {chr(97 + (first + n) // 20)}{chr(97 + (first + n) % 20)} there."
        for n in range(1, count + 1)
    )
    return "\n".join(texts)


def test_what_is_missing_is_asked_for_again() -> None:
    replies = [
        *(numbered(0, 6, "ship"), numbered(4, 2, "ship"), numbered(0, 10, "house"), numbered(20, 10, "house")),
        *(numbered(0, 6, "ship"), numbered(30, 12, "ship")),
    ]
    engine = ScriptedEngine(lambda request, number: replies[request])
    texts = asyncio.run(writer(engine).write("ships", 12, 0))
    assert len(texts.relevant) == len(set(texts.relevant)) == 12
    assert all("ship" in text for text in texts.relevant)
    assert len(texts.baseline) == 12
    assert texts.errors == ("", "")
    assert texts.prompt_ids == ("sasc/relevant.v1", "sasc/baseline.v1")
    questions = [request.messages[-1].content for request in engine.asked]
    assert [question.split()[1] for question in questions] == ["10", "2", "10", "2", "6", "6"]
    assert ["none fits" in question for question in questions] == [False, False, True, True, False, False]
    assert all(
        "fits this description: ships" in question or "fit this description: ships" in question
        for question in questions
    )
    assert len({(request.messages, request.attempt, request.seed) for request in engine.asked}) == 6
    assert texts.completion_tokens[0] == sum(len(replies[place].split()) for place in (0, 1, 4, 5))


def test_all_that_is_wanted_is_asked_for_at_once() -> None:
    """Two kinds of 25 texts are six requests in flight together: one wait, not six."""
    waiting = asyncio.Event()

    class Together(ScriptedEngine):
        async def complete(self, request: Request) -> list[Completion]:
            found = await super().complete(request)
            if len(self.asked) == 6:
                waiting.set()
            await asyncio.wait_for(waiting.wait(), 5)
            return found

    engine = Together(lambda request, number: numbered(20 * request, 10, "ship"))
    texts = asyncio.run(writer(engine).write("ships", 25, 0))
    assert (len(texts.relevant), len(texts.baseline), len(engine.asked)) == (25, 25, 6)


def test_texts_of_one_kind_are_no_texts_of_the_other() -> None:
    engine = ScriptedEngine(lambda request, number: numbered(0, 10, "ship"))
    texts = asyncio.run(writer(engine).write("ships", 10, 0))
    assert len(texts.relevant) == 10
    assert texts.baseline == []
    assert texts.errors[0] == ""
    assert "0 of 10 texts could be used" in texts.errors[1]


def test_refusals_are_asked_again_and_errors_are_told() -> None:
    replies: list[str | EngineError] = [Refused("no", 5, 2), EngineError("server is gone"), numbered(0, 10, "ship")]
    texts = asyncio.run(writer(ScriptedEngine(lambda request, _: replies[request])).write("ships", 10, 0))
    assert len(texts.relevant) == 10
    assert texts.baseline == []
    assert texts.errors == ("", "server is gone")
    assert texts.prompt_tokens[0] > 5


class Bags:
    """Embeds a text as the set of its words."""

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = np.full((len(texts), 64), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().strip(".").split():
                vectors[row, zlib.crc32(word.encode()) % 64] += 1
        found: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return found


def bags() -> Embedder:
    return cast(Embedder, Bags())  # it has all that passages need of an embedder


def test_passages_for_an_explanation_are_the_nearest_and_those_against_it_are_far_and_as_long() -> None:
    near = [f"ships sailed {'very ' * n}far away {chr(97 + n)}." for n in range(4)]
    far = [f"dogs eat {'much ' * (n % 4)}meat daily {chr(97 + n)}." for n in range(16)]
    synthesizer = RetrievedSynthesizer(near + far, bags())
    texts = asyncio.run(synthesizer.write("ships sailed far away", 4, 0))
    assert set(texts.relevant) == set(near)
    assert set(texts.baseline) < set(far)
    assert sorted(len(text.split()) for text in texts.baseline) == sorted(len(text.split()) for text in near)
    assert texts.origin == "retrieved"
    assert texts.errors == ("", "")


def test_a_small_corpus_gives_fewer_passages_and_says_so() -> None:
    passages = [f"this is passage {word}." for word in ("one", "two", "three", "four")]
    texts = asyncio.run(RetrievedSynthesizer(passages, bags()).write("this", 10, 0))
    assert len(texts.relevant) == len(texts.baseline) == 2
    assert not set(texts.relevant) & set(texts.baseline)
    assert all("4 passages" in error for error in texts.errors)


def test_passages_are_whole_sentences_each_once() -> None:
    windows = [
        ("The first sentence is whole. The second one ends", True),
        (" cut off here. A sentence in the middle. And it was", False),
        ('x. A sentence in the middle! Too short. "Is this one a question?" he asked.', False),
    ]
    assert cut_passages(windows, 10, np.random.default_rng(0)) == [
        "The first sentence is whole.",
        "A sentence in the middle.",
        '"Is this one a question?" he asked.',
    ]
    assert len(cut_passages(windows, 2, np.random.default_rng(0))) == 2
