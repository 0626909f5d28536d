"""Log-probabilities of prompts' tokens over /completions: what is asked, and what is kept of the answer.

A prompt is a list of token ids, so that a place in it is a token index. Of an answer only the wanted tokens at the
wanted places are kept, as rows of log-probabilities with None where a token is not among the alternatives. What does not
fit raises ValueError, KeyError, TypeError or IndexError, which the sender takes for a fault of the transport.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.llm.endpoint.profile import PromptReading
from pipeline.llm.endpoint.reading import checked, in_order

_ID = "token_id:"

Json = Mapping[str, Any]
Row = list[float | None]
Find = Callable[[int], Any]


def prompt_body(ids: Sequence[int], reading: PromptReading) -> dict[str, Any]:
    """Asks for the alternatives at every token of one prompt."""
    body: dict[str, Any] = {"prompt": list(ids), "max_tokens": reading.max_tokens, "temperature": 0}
    if reading.way == "echo":
        return body | {"echo": True, "logprobs": reading.alternatives}
    return body | {"prompt_logprobs": reading.alternatives}


def next_body(prompts: Sequence[Sequence[int]], reading: PromptReading) -> dict[str, Any]:
    """Asks for the alternatives in the place of the one token behind each prompt, which prefix caches make cheap."""
    body: dict[str, Any] = {"prompt": [list(ids) for ids in prompts], "max_tokens": 1, "temperature": 0}
    body["logprobs"] = reading.alternatives
    return body | ({"return_tokens_as_token_ids": True} if reading.token_ids else {})


def keep_prompt(
    reply: Json, ids: Sequence[int], places: Sequence[int], wanted: Sequence[int], reading: PromptReading
) -> dict[str, Any]:
    """Rows for the tokens at `places`, each given all tokens before it."""
    choice = in_order(reply)[0]
    find = _echoed if reading.way == "echo" else _listed
    try:
        return {"rows": [_row(find(choice, ids, place, reading), wanted) for place in places]}
    except AttributeError as error:
        raise TypeError(f"a reply of another form: {error}") from None


def keep_next(reply: Json, prompts: int, wanted: Sequence[int], reading: PromptReading) -> dict[str, Any]:
    """One row for each prompt."""
    choices = in_order(reply)
    if [int(choice["index"]) for choice in choices] != list(range(prompts)):
        raise ValueError(f"{len(choices)} replies to {prompts} prompts")
    try:
        return {"rows": [_row(_first(choice, reading), wanted) for choice in choices]}
    except AttributeError as error:
        raise TypeError(f"a reply of another form: {error}") from None


def _row(find: Find, wanted: Sequence[int]) -> Row:
    values = [find(token) for token in wanted]
    return [None if value is None or value == float("-inf") else checked(value) for value in values]


def _listed(choice: Json, ids: Sequence[int], place: int, _: PromptReading) -> Find:
    """The alternatives at a place by vLLM's `prompt_logprobs`: one entry by token id, the prompt's own token among them."""
    listed = choice["prompt_logprobs"]
    if len(listed) != len(ids):
        raise ValueError(f"log-probabilities of {len(listed)} tokens for a prompt of {len(ids)}")
    entries = listed[place]
    checked(entries[str(ids[place])]["logprob"])
    return lambda token: entries[str(token)]["logprob"] if str(token) in entries else None


def _echoed(choice: Json, ids: Sequence[int], place: int, reading: PromptReading) -> Find:
    """The alternatives at a place by `echo`: texts, the prompt's own token by itself."""
    logprobs = choice["logprobs"]
    if len(logprobs["tokens"]) < len(ids):
        raise ValueError(f"log-probabilities of {len(logprobs['tokens'])} tokens for a prompt of {len(ids)}")
    own, entries, names = logprobs["token_logprobs"][place], logprobs["top_logprobs"][place], dict(reading.spelling)
    checked(own)
    return lambda token: own if token == ids[place] else entries.get(names[token])


def _first(choice: Json, reading: PromptReading) -> Find:
    """The alternatives of the first token of a reply, by id where the server names ids, else by text."""
    entries, names = choice["logprobs"]["top_logprobs"][0], dict(reading.spelling)
    if any(key.startswith(_ID) for key in entries):
        return lambda token: entries.get(f"{_ID}{token}")
    return lambda token: entries.get(names[token])


def spelling(reply: Json, ids: Sequence[int], start: int, way: str) -> tuple[tuple[int, str], ...]:
    """(token id, text) as the server names the prompt's tokens from `start` on."""
    choice = reply["choices"][0]
    places = range(start, len(ids))
    if way == "echo":
        texts = choice["logprobs"]["tokens"]
        return tuple((ids[place], str(texts[place])) for place in places)
    listed = choice["prompt_logprobs"]
    return tuple((ids[place], str(listed[place][str(ids[place])].get("decoded_token"))) for place in places)


def alternatives(reply: Json, ids: Sequence[int], start: int, way: str) -> int:
    """The fewest tokens that are listed at any place of the prompt from `start` on."""
    choice = reply["choices"][0]
    listed = choice["logprobs"]["top_logprobs"] if way == "echo" else choice["prompt_logprobs"]
    return min(len(listed[place]) for place in range(start, len(ids)))


def names_ids(reply: Json) -> bool:
    """Whether the reply's own tokens are named by their ids."""
    return all(key.startswith(_ID) for key in reply["choices"][0]["logprobs"]["top_logprobs"][-1])
