"""Log-probabilities of a prompt's tokens over /completions: how they are asked for and read, and how it is found out.

Servers differ:

- vLLM takes the field `prompt_logprobs` and names each token by its id. Its `return_tokens_as_token_ids` does the same for
  the tokens of the reply.
- SGLang and the hosted services that kept OpenAI's older interface take `echo` with `logprobs` and name tokens by their texts.
- llama.cpp, Ollama and OpenAI give none; only the first token of a reply can be read there (`number_scorers.ReplyScorer`).

A prompt is a list of token ids, so that a place in it is a token index. Of an answer only the wanted tokens at the wanted
places are kept, as rows of log-probabilities with None where a token is not among the alternatives. An answer of another
form raises one of `faults.UNLIKE`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.llm.endpoint.client import PLAIN
from pipeline.llm.endpoint.completions import PromptLogprobs, checked, in_order
from pipeline.llm.endpoint.faults import UNLIKE, NotFound, Rejected
from pipeline.llm.endpoint.sender import Ask, Sender
from pipeline.llm.prompt_encoder import PromptEncoder, number_tokens

TRIES = 3
ALTERNATIVES = (20, 5)
"""Alternatives asked for at each token, until the endpoint takes a number."""
TEXT = "These are numbers:\t"
_ID = "token_id:"

Json = Mapping[str, Any]
Row = list[float | None]
Find = Callable[[int], Any]


def prompt_body(ids: Sequence[int], reading: PromptLogprobs) -> dict[str, Any]:
    """Asks for the alternatives at every token of one prompt; the one token of the reply is left aside."""
    body: dict[str, Any] = {"prompt": list(ids), "max_tokens": 1, "temperature": 0}
    if reading.way == "echo":
        return body | {"echo": True, "logprobs": reading.alternatives}
    return body | {"prompt_logprobs": reading.alternatives}


def next_body(prompts: Sequence[Sequence[int]], reading: PromptLogprobs) -> dict[str, Any]:
    """Asks for the alternatives in the place of the one token behind each prompt, which prefix caches make cheap."""
    body: dict[str, Any] = {"prompt": [list(ids) for ids in prompts], "max_tokens": 1, "temperature": 0}
    body["logprobs"] = reading.alternatives
    return body | ({"return_tokens_as_token_ids": True} if reading.token_ids else {})


def keep_prompt(
    reply: Json, ids: Sequence[int], places: Sequence[int], wanted: Sequence[int], reading: PromptLogprobs
) -> dict[str, Any]:
    """Rows for the tokens at `places`, each given all tokens before it."""
    choice = in_order(reply)[0]
    find = _echoed if reading.way == "echo" else _listed
    return {"rows": [_row(find(choice, ids, place, reading), wanted) for place in places]}


def keep_next(reply: Json, prompts: int, wanted: Sequence[int], reading: PromptLogprobs) -> dict[str, Any]:
    """One row for each prompt."""
    choices = in_order(reply)
    if [int(choice["index"]) for choice in choices] != list(range(prompts)):
        raise ValueError(f"{len(choices)} replies to {prompts} prompts")
    return {"rows": [_row(_first(choice, reading), wanted) for choice in choices]}


def _row(find: Find, wanted: Sequence[int]) -> Row:
    values = [find(token) for token in wanted]
    return [None if value is None or value == float("-inf") else checked(value) for value in values]


def _listed(choice: Json, ids: Sequence[int], place: int, _: PromptLogprobs) -> Find:
    """The alternatives at a place by `prompt_logprobs`: one entry by token id, the prompt's own token among them."""
    listed = choice["prompt_logprobs"]
    if len(listed) != len(ids):
        raise ValueError(f"log-probabilities of {len(listed)} tokens for a prompt of {len(ids)}")
    entries = listed[place]
    checked(entries[str(ids[place])]["logprob"])
    return lambda token: entries[str(token)]["logprob"] if str(token) in entries else None


def _echoed(choice: Json, ids: Sequence[int], place: int, reading: PromptLogprobs) -> Find:
    """The alternatives at a place by `echo`: texts, the prompt's own token by itself."""
    logprobs = choice["logprobs"]
    if len(logprobs["tokens"]) < len(ids):
        raise ValueError(f"log-probabilities of {len(logprobs['tokens'])} tokens for a prompt of {len(ids)}")
    own, entries, names = logprobs["token_logprobs"][place], logprobs["top_logprobs"][place], dict(reading.spelling)
    checked(own)
    return lambda token: own if token == ids[place] else entries.get(names[token])


def _first(choice: Json, reading: PromptLogprobs) -> Find:
    """The alternatives of the first token of a reply, by id where the server names ids, else by text."""
    entries, names = choice["logprobs"]["top_logprobs"][0], dict(reading.spelling)
    if any(key.startswith(_ID) for key in entries):
        return lambda token: entries.get(f"{_ID}{token}")
    return lambda token: entries.get(names[token])


async def find_reading(sender: Sender, encoder: PromptEncoder, first_attempt: int) -> PromptLogprobs:
    """The first way that works, tried on a prompt which ends with all tokens that numbers are written with.

    A way works if its answer names every token of the prompt at its place, with alternatives, and the token behind a prompt
    is given alternatives too. Each way is tried until TRIES replies show no effect of it.

    Raises:
        EngineError: no answer at all.
    """
    wanted = number_tokens(encoder).wanted
    start = len(encoder.encode(TEXT))
    ids = [*encoder.encode(TEXT), *wanted]
    for attempt in range(first_attempt, first_attempt + TRIES):
        ignored = False
        for way in _ways():
            try:
                reply = await _send(sender, prompt_body(ids, way), attempt)
                found = _shown(reply, ids, start, way)
                behind = await _send(sender, next_body([ids, ids[:-1]], way), attempt)
                return _checked_behind(behind, found, wanted)
            except NotFound:
                return PromptLogprobs()
            except Rejected:
                continue
            except UNLIKE:
                ignored = True
        if not ignored:
            break
    return PromptLogprobs()


def _ways() -> Iterator[PromptLogprobs]:
    """What may work, best first."""
    for wanted in ALTERNATIVES:
        yield PromptLogprobs("prompt_logprobs", wanted, token_ids=True)
    for wanted in ALTERNATIVES:
        yield PromptLogprobs("echo", wanted)


def _shown(reply: Json, ids: list[int], start: int, way: PromptLogprobs) -> PromptLogprobs:
    """The way with what an answer shows of the prompt's tokens from `start` on; raises where it does not show it."""
    choice, places = reply["choices"][0], range(start, len(ids))
    if way.way == "echo":
        listed = choice["logprobs"]["top_logprobs"]
        names = [str(choice["logprobs"]["tokens"][place]) for place in places]
    else:
        listed = choice["prompt_logprobs"]
        names = [str(listed[place][str(ids[place])].get("decoded_token")) for place in places]
    fewest = min(way.alternatives, *(len(listed[place]) for place in places))
    if fewest < 2:
        raise ValueError("no alternatives to the prompt's own tokens")
    found = replace(way, listed=fewest, spelling=tuple(zip(ids[start:], names, strict=True)))
    keep_prompt(reply, ids, places, ids[start:], found)
    return found


def _checked_behind(reply: Json, found: PromptLogprobs, wanted: Sequence[int]) -> PromptLogprobs:
    """The way with what an answer shows of the token behind a prompt; raises where it does not show it."""
    keep_next(reply, 2, wanted, found)
    token_ids = all(key.startswith(_ID) for key in reply["choices"][0]["logprobs"]["top_logprobs"][-1])
    if not token_ids and len({name for _, name in found.spelling}) < len(found.spelling):
        raise ValueError("two tokens of numbers are named alike")
    return replace(found, token_ids=found.token_ids and token_ids)


async def _send(sender: Sender, body: dict[str, Any], attempt: int) -> dict[str, Any]:
    answer = await sender.ask(Ask(PLAIN, body, keep=_choices, attempt=attempt))
    return answer.body


def _choices(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply with at least one choice; anything else is a fault."""
    return {"choices": in_order(reply)}
