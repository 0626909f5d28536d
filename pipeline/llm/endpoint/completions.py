"""What a model behind an endpoint understands, requests made accordingly, and their replies.

A kept reply is JSON: {"model": text, "replies": [{"text", "finish", "refusal", "tokens": [[text, [[text, log-probability],
...]], ...]}, ...]}. A reply of another form raises one of `faults.UNLIKE`, and the sender tries again.
"""

import math
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from pipeline.llm.endpoint.client import CHAT, PLAIN
from pipeline.llm.endpoint.response_cache import Answer
from pipeline.llm.endpoint.sender import Ask
from pipeline.llm.engine import Capabilities, Completion, Refused, ReplyToken, Request
from pipeline.llm.prompt_encoder import plain_texts

STOPS = 4
"""Stop texts that servers take at most; a reply is cut at the others here."""
_STRIDE = 7919  # between the draws of one attempt and the next; a prime, so that neighbouring seeds do not meet soon

ROUNDING = 1e-3
"""A log-probability up to here above 0 is 0, rounded by the server; more is garbage."""

Json = dict[str, Any]
Token = tuple[bytes, Any, list[tuple[str, Any]]]
"""Its spelling, its log-probability, and its alternatives, as a server gives them."""
LimitField = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True)
class PromptLogprobs:
    """How an endpoint gives the log-probabilities of the tokens of a prompt, which is sent as token ids."""

    way: Literal["", "prompt_logprobs", "echo"] = ""
    """By vLLM's field `prompt_logprobs`; by `echo` with `logprobs`, as SGLang does; empty where neither works."""
    alternatives: int = 0
    """Tokens to ask for at each place of the prompt."""
    listed: int = 0
    """Tokens that were given for so many, at least."""
    token_ids: bool = False
    """Whether it names the tokens of its reply by their ids (vLLM's `return_tokens_as_token_ids`)."""
    spelling: tuple[tuple[int, str], ...] = ()
    """The text by which it names each token that numbers are written with."""


@dataclass(frozen=True)
class EndpointCapabilities(Capabilities):
    """What a model behind an endpoint understands; kept as JSON in the response cache."""

    chat: bool = True
    """Answers /chat/completions; else only /completions."""
    limit_field: LimitField = "max_tokens"
    """The field that limits the tokens of a reply."""
    temperature: bool = True
    stop: bool = True
    """Whether these fields are taken; models that reason refuse them."""
    context: int | None = None
    """Tokens of prompt and reply together, as /models says; None where it does not."""
    other_models: tuple[str, ...] = ()
    """The models that /models lists, where this one is not among them."""
    reading: PromptLogprobs = field(default_factory=PromptLogprobs)


def asks(request: Request, can: EndpointCapabilities) -> list[Ask]:
    """The requests to send for `request`: one, or one for each reply where the server gives only one.

    The i-th of them has the seed of the request plus i, and a raised `attempt` has other seeds. Where the server knows no
    seed, the number stands for the draw in the response cache, so that another seed is still another reply. A temperature
    of 0 has neither.
    """
    path, body = body_of(request, can)
    logprobs = min(request.logprobs, can.logprobs) > 0
    if request.temperature <= 0:
        return [Ask(path, body, partial(keep_replies, wanted=1, logprobs=logprobs), request.attempt)]
    replies = request.n if can.n else 1
    if replies > 1:
        body["n"] = replies
    keep, found = partial(keep_replies, wanted=replies, logprobs=logprobs), []
    for number in range(request.n // replies):
        draw = (request.seed + number + _STRIDE * request.attempt) % 2**31
        found.append(
            Ask(path, body | ({"seed": draw} if can.seed else {}), keep, request.attempt if can.seed else draw)
        )
    return found


def body_of(request: Request, can: EndpointCapabilities) -> tuple[str, Json]:
    """Path and body of a request for one reply, without a seed."""
    if can.chat:
        body: Json = {"messages": [{"role": one.role, "content": one.content.lstrip()} for one in request.messages]}
    else:
        body = {"prompt": "".join(plain_texts(request.messages))}
    body[can.limit_field] = request.max_tokens
    if can.temperature:
        body["temperature"] = request.temperature
    if can.stop and request.stop:
        body["stop"] = list(request.stop)[:STOPS]
    if can.chat and request.schema is not None and can.json_schema:
        schema = {"name": "reply", "strict": True, "schema": dict(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if alternatives := min(request.logprobs, can.logprobs):
        body |= {"logprobs": True, "top_logprobs": alternatives} if can.chat else {"logprobs": alternatives}
    return CHAT if can.chat else PLAIN, body


def keep_replies(reply: Mapping[str, Any], wanted: int, logprobs: bool) -> Json:
    """What is kept of a reply of /chat/completions or /completions.

    Args:
        wanted: number of replies that were asked for.
        logprobs: whether log-probabilities were asked for.
    """
    choices = in_order(reply)
    if len(choices) != wanted:
        raise ValueError(f"{len(choices)} replies where {wanted} were asked for")
    return {"model": str(reply.get("model") or ""), "replies": [_kept(choice, logprobs) for choice in choices]}


def in_order(reply: Mapping[str, Any]) -> list[Json]:
    """The choices of a reply by their index, at least one."""
    choices = reply["choices"]
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise TypeError("a reply without choices")
    return sorted(choices, key=lambda choice: int(choice.get("index") or 0))


def _kept(choice: Mapping[str, Any], logprobs: bool) -> Json:
    message = choice.get("message")
    text = choice["text"] if message is None else message.get("content")
    refusal = None if message is None else message.get("refusal")
    finish = str(choice.get("finish_reason") or "")
    if finish == "content_filter" and not refusal:
        refusal = "by the server's content filter"
    if text is not None and not isinstance(text, str):
        raise TypeError(f"a reply's content is of type {type(text).__name__}")
    if refusal is not None and not isinstance(refusal, str):
        raise TypeError(f"a reply's refusal is of type {type(refusal).__name__}")
    kept: Json = {"text": text or "", "finish": finish, "refusal": refusal or "", "tokens": []}
    if logprobs:
        kept["tokens"] = _tokens(choice.get("logprobs"))
        if text and not kept["tokens"]:
            raise ValueError("a reply without the log-probabilities that were asked for")
    return kept


def _tokens(logprobs: Mapping[str, Any] | None) -> list[Any]:
    """The tokens of a reply, each with its alternatives, the likeliest first."""
    if not logprobs:
        return []
    found = list(_chat_tokens(logprobs["content"] or ()) if "content" in logprobs else _plain_tokens(logprobs))
    kept = []
    for text, (spelling, value, alternatives) in zip(decoded(spelling for spelling, *_ in found), found, strict=True):
        own = spelling.decode(errors="replace"), checked(value)
        listed = [(other, checked(logprob)) for other, logprob in alternatives if logprob != -math.inf]
        listed += [] if own[0] in dict(listed) else [own]
        kept.append([text, [list(pair) for pair in sorted(listed, key=lambda pair: -pair[1])]])
    return kept


def _chat_tokens(entries: Iterable[Mapping[str, Any]]) -> Iterator[Token]:
    for entry in entries:
        others = entry.get("top_logprobs") or ()
        listed = [(_bytes(other).decode(errors="replace"), other["logprob"]) for other in others]
        yield _bytes(entry), entry["logprob"], listed


def _plain_tokens(logprobs: Mapping[str, Any]) -> Iterator[Token]:
    tokens = logprobs["tokens"] or []
    tops = logprobs.get("top_logprobs") or [{}] * len(tokens)
    for token, value, top in zip(tokens, logprobs["token_logprobs"], tops, strict=True):
        yield token.encode(errors="replace"), value, list((top or {}).items())


def _bytes(entry: Mapping[str, Any]) -> bytes:
    listed = entry.get("bytes")
    return bytes(listed) if listed else str(entry["token"]).encode(errors="replace")


def checked(value: Any) -> float:
    """A log-probability.

    Raises:
        TypeError: it is no number.
        ValueError: it is NaN, or above 0 by more than ROUNDING.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"a log-probability of type {type(value).__name__}")
    if not value <= ROUNDING:  # NaN too
        raise ValueError(f"a log-probability of {value}")
    return min(max(float(value), -1e9), 0.0)


def decoded(spellings: Iterable[bytes]) -> list[str]:
    """The texts of tokens in a row; joined, they are the whole text, so a character of several tokens is the last one's."""
    decoder = getincrementaldecoder("utf-8")("replace")
    texts = [decoder.decode(spelling) for spelling in spellings]
    if texts:
        texts[-1] += decoder.decode(b"", final=True)
    return texts


def completions(answers: Sequence[Answer], stop: Sequence[str]) -> list[Completion]:
    """The kept replies of all answers to one request, without white space before them, cut before any stop text.

    The tokens that a server counts for several replies together are shared out by the length of the texts. A refusal
    beside other replies is an empty text.

    Raises:
        Refused: all are refusals.
    """
    replies = [reply for answer in answers for reply in answer.body["replies"]]
    read = sum(answer.prompt_tokens for answer in answers)
    if all(reply["refusal"] for reply in replies):
        written_in_vain = sum(answer.completion_tokens for answer in answers)
        raise Refused(f"refused: {replies[0]['refusal'][:200]}", read, written_in_vain)
    return [
        _completion(reply, answer.body["model"], stop, read, written)
        for answer in answers
        for reply, written in zip(answer.body["replies"], _shared_out(answer), strict=True)
    ]


def _shared_out(answer: Answer) -> list[int]:
    """The reply tokens of an answer, to its replies by their length; they add up to what was counted."""
    lengths = [len(reply["text"].encode()) + 1 for reply in answer.body["replies"]]
    ends = [answer.completion_tokens * sum(lengths[:count]) // sum(lengths) for count in range(len(lengths) + 1)]
    return [end - start for start, end in pairwise(ends)]


def _completion(reply: Json, model: str, stop: Sequence[str], read: int, written: int) -> Completion:
    whole = "" if reply["refusal"] else reply["text"]
    start = len(whole) - len(whole.lstrip())
    text = cut(whole[start:], stop)
    finished = reply["finish"] != "length" or start + len(text) < len(whole)
    return Completion(text, read, written, finished, tuple(_within(reply["tokens"], whole, start, text)), model)


def cut(text: str, stop: Sequence[str]) -> str:
    """The text up to the first of the stop texts; servers that do not know `stop` write on."""
    return text[: min((place for mark in stop if mark and (place := text.find(mark)) >= 0), default=len(text))]


def _within(tokens: Sequence[Any], whole: str, start: int, text: str) -> Iterator[ReplyToken]:
    """The tokens of `text`, which begins at `start` of the whole reply; none where they do not spell the reply."""
    place = "".join(piece for piece, _ in tokens).rfind(whole)
    if place < 0:
        return
    begin, end = place + start, place + start + len(text)
    at = 0
    for piece, alternatives in tokens:
        shown = piece[max(begin - at, 0) : max(end - at, 0)]
        if shown or (not piece and begin <= at < end):
            yield ReplyToken(shown, tuple((other, float(value)) for other, value in alternatives))
        at += len(piece)
