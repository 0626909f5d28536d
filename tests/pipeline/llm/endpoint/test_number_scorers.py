"""Numbers over an endpoint are those of the same model in this process."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.errors import UserError
from pipeline.llm.endpoint import number_scorers
from pipeline.llm.endpoint.number_scorers import reply_numbers
from pipeline.llm.engine import Message, NumberPrompt, NumberScores
from pipeline.llm.in_process import InProcessEngine
from pipeline.subjects.loading.model_loading import LoadedModel
from tests.pipeline.llm.endpoint.model_server import Json, serving
from tests.pipeline.llm.endpoint.opened import opened
from tests.pipeline.llm.endpoint.served_model import ServedModel, served

Array = npt.NDArray[np.float32]

MESSAGES = (Message("system", "Give numbers."), Message("user", "What <tool> is\tthis?"))
WITHIN = (2, 4, 6)
LINES = (" go:\n", "a <|end|>\t", "unknown\n", "\u00e9\t", "unknown\n", "c\t", "unknown\n")
PROMPTS = [
    NumberPrompt(MESSAGES, LINES, WITHIN),
    NumberPrompt(MESSAGES, LINES[:-1], (2, 6)),
    NumberPrompt(MESSAGES, LINES[:2], (2,)),
    NumberPrompt((*MESSAGES, Message("assistant", "4"), Message("user", "And this?")), (), (0,)),
]


def over_endpoint(url: str, folder: Path, prompts: Sequence[NumberPrompt], **settings: Any) -> list[NumberScores]:
    async def main() -> list[NumberScores]:
        async with opened(url, folder, **settings) as engine:
            return await engine.score(prompts)

    return asyncio.run(main())


def in_process(loaded: LoadedModel, prompts: Sequence[NumberPrompt]) -> list[NumberScores]:
    return asyncio.run(InProcessEngine(loaded).score(prompts))


def save_tokenizer(loaded: LoadedModel, folder: Path) -> str:
    loaded.tokenizer.save_pretrained(folder / "tokenizer")
    return str(folder / "tokenizer")


def arrays(scores: NumberScores) -> tuple[Array, Array]:
    """Probabilities and coverage, which must be there."""
    assert scores.error == ""
    assert scores.probabilities is not None
    assert scores.coverage is not None
    return scores.probabilities, scores.coverage


def assert_equal(found: NumberScores, expected: NumberScores) -> None:
    for one, twin in zip(arrays(found), arrays(expected), strict=True):
        np.testing.assert_allclose(one, twin, atol=1e-4)


@pytest.mark.parametrize("ten", [True, False], ids=["10 in one token", "10 in two tokens"])
@pytest.mark.parametrize("way", [{}, {"token_ids": False}, {"prompt_logprobs": False}], ids=["ids", "texts", "echo"])
def test_numbers_equal_those_in_process(
    ten: bool, way: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(number_scorers, "BRANCH_FROM", 1e-30)
    loaded = served(ten)
    expected = in_process(loaded, PROMPTS)
    with serving(ServedModel(loaded), **way) as server:
        found = over_endpoint(server.url, tmp_path, PROMPTS, tokenizer=save_tokenizer(loaded, tmp_path))
    for prompt, one, twin in zip(PROMPTS, found, expected, strict=True):
        assert arrays(one)[0].shape == (len(prompt.slots), 11)
        assert one.prompt_tokens > 0
        assert_equal(one, twin)


def test_unlikely_beginnings_of_ten_are_not_asked_for(tmp_path: Path, loaded: LoadedModel) -> None:
    """The error of an expected value stays below 9 x BRANCH_FROM, and each request is known from its tokens."""
    expected = in_process(loaded, PROMPTS)
    with serving(ServedModel(loaded)) as server:
        found = over_endpoint(server.url, tmp_path, PROMPTS, tokenizer=save_tokenizer(loaded, tmp_path))
        sent = [body for _, body in server.seen if isinstance(body.get("prompt"), list)]
    for one, twin in zip(found, expected, strict=True):
        exact = arrays(twin)[0]
        likely = exact[:, 1] + exact[:, 10]
        difference = np.abs((arrays(one)[0] - exact) @ np.arange(11))
        assert (difference < np.where(likely >= number_scorers.BRANCH_FROM, 1e-3, 9 * number_scorers.BRANCH_FROM)).all()
    assert all(body["max_tokens"] <= 1 for body in sent)


def test_the_start_of_a_reply_is_read_from_a_chat_reply(tmp_path: Path) -> None:
    loaded = served(ten=True)
    prompt = NumberPrompt((Message("user", "How strongly?"),), (), (0,))
    (expected,) = in_process(loaded, [prompt])
    with serving(ServedModel(loaded), prompt_logprobs=False, echo=False) as server:
        (found,) = over_endpoint(server.url, tmp_path, [prompt])
        assert_equal(found, expected)
        with pytest.raises(UserError, match="only numbers at the start of a reply"):
            over_endpoint(server.url, tmp_path, PROMPTS)


def test_a_server_without_log_probabilities_scores_nothing(tmp_path: Path, model: ServedModel) -> None:
    with serving(model, logprobs=0) as server, pytest.raises(UserError, match="gives no log-probabilities"):
        over_endpoint(server.url, tmp_path, PROMPTS[-1:])


def _with_ten(second: bool) -> list[Any]:
    first = ["1", [["1", np.log(0.5)], ["7", np.log(0.2)], [" 7", np.log(0.1)], ["no", np.log(0.1)]]]
    return [first, ["0", [["0", np.log(0.4)], ["\n", np.log(0.6)]]]] if second else [first]


def test_ten_in_two_tokens_is_known_where_the_reply_went_on_that_way() -> None:
    found = np.exp(reply_numbers(_with_ten(second=True)))
    np.testing.assert_allclose(found[[1, 7, 10]], [0.3, 0.3, 0.2], atol=1e-9)
    found = np.exp(reply_numbers(_with_ten(second=False)))
    np.testing.assert_allclose(found[[1, 7, 10]], [0.5, 0.3, 0.0], atol=1e-9)


def test_numbers_that_are_not_listed_count_nothing(tmp_path: Path, loaded: LoadedModel) -> None:
    """With no number among the alternatives there is no value, and nothing that looks like one."""

    def spoil(path: str, body: Json, reply: Json) -> Json:
        ids = set(map(str, range(17, 27)))
        for choice in reply["choices"]:
            if len(body.get("prompt", "")) > 40 and "prompt_logprobs" in choice:
                for place, entries in enumerate(choice["prompt_logprobs"]):
                    own = str(body["prompt"][place])
                    choice["prompt_logprobs"][place] = entries and {
                        token: value for token, value in entries.items() if token == own or token not in ids
                    }
        return reply

    with serving(ServedModel(loaded)) as server:
        server.spoil = spoil
        (found,) = over_endpoint(server.url, tmp_path, PROMPTS[:1], tokenizer=save_tokenizer(loaded, tmp_path))
    probabilities, coverage = arrays(found)
    assert (coverage == 0).all()
    assert np.isnan(probabilities).all()


def _nan(entries: Json) -> Json:
    return {token: value | {"logprob": float("nan")} for token, value in entries.items()}


def _short(listed: list[Json]) -> list[Json]:
    return listed[:-1]


@pytest.mark.parametrize(
    "spoilt", [lambda listed: [None, *map(_nan, listed[1:])], _short, lambda _: None, lambda _: "x"]
)
def test_garbage_is_an_error_of_its_passage(
    spoilt: Callable[[list[Json]], Any], tmp_path: Path, loaded: LoadedModel
) -> None:
    def spoil(path: str, body: Json, reply: Json) -> Json:
        choice = reply["choices"][0]
        if "prompt_logprobs" in body and len(body["prompt"]) > 120:
            choice["prompt_logprobs"] = spoilt(choice["prompt_logprobs"])
        return reply

    long = NumberPrompt(PROMPTS[-1].messages, LINES, WITHIN)
    with serving(ServedModel(loaded)) as server:
        server.spoil = spoil
        bad, good = over_endpoint(
            server.url, tmp_path, [long, PROMPTS[0]], tokenizer=save_tokenizer(loaded, tmp_path), retries=0
        )
    assert bad.probabilities is None
    assert bad.error
    assert good.probabilities is not None


def test_a_passage_that_does_not_fit_is_an_error_and_not_sent(tmp_path: Path, loaded: LoadedModel) -> None:
    folder = save_tokenizer(loaded, tmp_path)
    with serving(ServedModel(loaded)) as server:
        (found,) = over_endpoint(server.url, tmp_path, PROMPTS[:1], tokenizer=folder, context=100)
        assert "context of 100" in found.error
        assert not any(len(body.get("prompt", ())) > 100 for _, body in server.seen)
        (found,) = over_endpoint(server.url, tmp_path, PROMPTS[:1], tokenizer=folder, context=200)
        assert not found.error
        assert any(len(body.get("prompt", ())) > 100 for _, body in server.seen)


def test_other_slots_of_the_same_text_are_other_numbers(tmp_path: Path, loaded: LoadedModel) -> None:
    """What is kept of a reply depends on the slots, so a cached reply for some is not taken for others."""
    folder = save_tokenizer(loaded, tmp_path)
    other = NumberPrompt(MESSAGES, LINES, (4,))
    with serving(ServedModel(loaded)) as server:
        (first,) = over_endpoint(server.url, tmp_path, PROMPTS[:1], tokenizer=folder)
        (second,) = over_endpoint(server.url, tmp_path, [other], tokenizer=folder)
    (again,) = over_endpoint(server.url, tmp_path, [other], tokenizer=folder)
    np.testing.assert_allclose(arrays(second)[0][0], arrays(first)[0][1], atol=1e-6)
    np.testing.assert_array_equal(arrays(second)[0], arrays(again)[0])
