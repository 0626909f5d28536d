"""Replies as they come, and what is made of them."""

import json
import math
from typing import Any

import pytest

from pipeline.llm.endpoint.completions import completions, keep_replies
from pipeline.llm.endpoint.response_cache import Answer
from pipeline.llm.engine import Completion, EngineError

Json = dict[str, Any]


def _choice(text: str | None, **message: Any) -> Json:
    return {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **message}}


def _entry(spelling: bytes, logprob: Any = -0.5, *others: tuple[str, float]) -> Json:
    token = {"token": spelling.decode(errors="replace"), "bytes": list(spelling), "logprob": logprob}
    tops = [{"token": text, "bytes": list(text.encode()), "logprob": value} for text, value in others]
    return token | {"top_logprobs": tops}


def _with_tokens(text: str, *entries: Json) -> Json:
    return _choice(text) | {"logprobs": {"content": list(entries)}}


def _read(*choices: Json, stop: tuple[str, ...] = (), logprobs: bool = False, tokens: int = 7) -> list[Completion]:
    kept = keep_replies({"model": "m", "choices": list(choices)}, len(choices), logprobs)
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept, "kept replies are JSON"
    return completions([Answer(kept, 11, tokens)], stop)


def test_a_reply_is_text_without_white_space_before_it() -> None:
    (found,) = _read(_choice("\n plants "))
    assert found == Completion("plants ", 11, 7, True, (), "m")


def test_replies_keep_their_order_and_share_the_tokens() -> None:
    choices = [_choice("aaaa") | {"index": 2}, _choice("b") | {"index": 0}, _choice("c") | {"index": 1}]
    found = _read(*choices, tokens=9)
    assert [completion.text for completion in found] == ["b", "c", "aaaa"]
    assert [completion.completion_tokens for completion in found] == [2, 2, 5]
    assert {completion.prompt_tokens for completion in found} == {11}


def test_a_server_that_ignores_stop_is_cut_here() -> None:
    (found,) = _read(_choice("one\ntwo") | {"finish_reason": "length"}, stop=("", "\n"))
    assert (found.text, found.finished) == ("one", True)
    (found,) = _read(_choice("one") | {"finish_reason": "length"}, stop=("\n",))
    assert (found.text, found.finished) == ("one", False)


def test_a_refusal_is_this_request_s_error_and_beside_others_an_empty_text() -> None:
    refused = _choice(None, refusal="I must not.")
    with pytest.raises(EngineError, match=r"^refused: I must not\.$"):
        _read(refused)
    assert [completion.text for completion in _read(refused, _choice("fine"))] == ["", "fine"]
    with pytest.raises(EngineError, match="content filter"):
        _read(_choice(None) | {"finish_reason": "content_filter"})


def test_an_empty_reply_is_no_fault() -> None:
    assert _read(_choice(None))[0].text == ""


@pytest.mark.parametrize("logprob", [math.nan, 0.5, "0", None, True])
def test_log_probabilities_that_are_none_are_a_fault(logprob: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        _read(_with_tokens("a", _entry(b"a", logprob)), logprobs=True)


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [_choice("a"), _choice("b")]},
        {"choices": [{"index": 0}]},
        {"choices": [_choice(5)]},  # type: ignore[arg-type]
        {"choices": ["text"]},
    ],
)
def test_a_reply_of_another_form_is_a_fault(reply: Json) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, IndexError)):
        keep_replies(reply, 1, logprobs=False)


def test_log_probabilities_that_stay_away_are_a_fault() -> None:
    with pytest.raises(ValueError, match="without the log-probabilities"):
        _read(_choice("a"), logprobs=True)
    assert _read(_choice(""), logprobs=True)[0].tokens == ()


def test_tokens_spell_the_text_where_a_character_has_several() -> None:
    """An o with two dots is two bytes, each a token; a stop text and white space cut through tokens."""
    entries = [_entry(b"\n "), _entry(b" sch"), _entry(b"\xc3"), _entry(b"\xb6"), _entry(b"n\nund"), _entry(b" gut")]
    (found,) = _read(_with_tokens("\n  schön\nund gut", *entries), logprobs=True, stop=("\n",))
    assert found.text == "schön"
    assert [token.text for token in found.tokens] == ["sch", "", "ö", "n"]


def test_alternatives_are_sorted_with_the_token_among_them() -> None:
    entry = _entry(b"7", -1.5, ("3", -2.0), ("10", -0.4), ("x", -math.inf))
    (found,) = _read(_with_tokens("7", entry), logprobs=True)
    assert found.tokens[0].alternatives == (("10", -0.4), ("7", -1.5), ("3", -2.0))


def test_tokens_before_the_text_are_left_out_and_tokens_of_another_text_too() -> None:
    """Some servers list the tokens of the model's thoughts."""
    (found,) = _read(
        _with_tokens("so", _entry(b"<think>"), _entry(b"so"), _entry(b"</think>"), _entry(b"so")), logprobs=True
    )
    assert [token.text for token in found.tokens] == ["so"]
    (found,) = _read(_with_tokens("so", _entry(b"well")), logprobs=True)
    assert found.tokens == ()


def test_the_older_form_of_log_probabilities_is_read() -> None:
    logprobs = {
        "tokens": ["1", "0"],
        "token_logprobs": [-0.1, -0.2],
        "top_logprobs": [{"2": -3.0, "1": -0.1}, {"\n": -2.0}],
    }
    choice = {"index": 0, "finish_reason": "stop", "text": "10", "logprobs": logprobs}
    (found,) = _read(choice, logprobs=True)
    assert [token.alternatives for token in found.tokens] == [(("1", -0.1), ("2", -3.0)), (("0", -0.2), ("\n", -2.0))]
