"""A model for a loopback server: well-formed replies to the prompts of explainers, simulators and judges, drawn by a hash."""

import json
import math
import random
import re
from typing import Any

WORDS = ["river", "stone", "light", "winter", "garden", "letter", "window", "colour", "number", "city", "music"]
Json = dict[str, Any]
_TOKEN = re.compile(r" ?\d+|\D")
_ROW = re.compile(r"^(\d+):(.*)$", re.MULTILINE)


def reply(body: Json) -> Json:
    """The reply to a request of /chat/completions; equal requests get equal ones."""
    content = json.dumps(body, sort_keys=True)
    texts = [_text(body, random.Random(f"{content}/{number}")) for number in range(body.get("n", 1))]
    choices = [{"index": number, **_choice(text, body)} for number, text in enumerate(texts)]
    read = sum(4 + len(message["content"].encode()) // 4 for message in body["messages"])
    written = sum(1 + len(text) // 4 for text in texts)
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return {"object": "chat.completion", "model": body["model"], "choices": choices, "usage": usage}


def _choice(text: str, body: Json) -> Json:
    logprobs = {"content": [_token(token, body) for token in _TOKEN.findall(text)]} if body.get("logprobs") else None
    return {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": logprobs}


def _token(token: str, body: Json) -> Json:
    """A token of a reply with its alternatives: numbers in the place of a number."""
    space, number = token[: len(token) - len(token.lstrip(" "))], token.strip()
    others = [f"{space}{value}" for value in range(11)] if number.isdecimal() else list("abcdefghijk")
    shown = [token, *(other for other in others if other != token)][: body.get("top_logprobs", 0)]
    rows = [
        {"token": other, "bytes": list(other.encode()), "logprob": math.log(0.02 if place else 0.7)}
        for place, other in enumerate(shown)
    ]
    return {"token": token, "bytes": list(token.encode()), "logprob": math.log(0.7), "top_logprobs": rows}


def _text(body: Json, drawn: random.Random) -> str:
    """What the last message asks for."""
    asked = body["messages"][-1]["content"]
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    properties = schema.get("properties", {})
    if "explanation" in properties:
        return json.dumps({"explanation": _sentence(drawn)})
    if "texts" in properties and properties["texts"]["items"]["type"] == "string":
        count = int(asked.split()[1])  # Write 10 texts that
        return json.dumps(
            {"texts": [f"Nobody saw the {drawn.choice(WORDS)} of {drawn.random():.9f} again." for _ in range(count)]}
        )
    if "texts" in properties:
        return json.dumps({"texts": [_active(number, text, drawn) for number, text in enumerate(_texts(asked), 1)]})
    if properties:
        return json.dumps({name: values["enum"][0] for name, values in properties.items()})
    if asked.startswith("The neuron is said to respond to:"):
        count = len(re.findall(r"^\d+\. ", asked, re.MULTILINE))
        return "".join(f"\n{number}: {drawn.choice(['yes', 'no'])}" for number in range(1, count + 1))
    if asked.startswith("Which of these texts does not belong"):
        return str(drawn.randint(1, len(re.findall(r"^\d+\. ", asked, re.MULTILINE))))
    if "\nLast token:" in asked:
        return str(drawn.randint(0, 10))
    if texts := _texts(asked):
        rows = [row for text in texts for row in _ROW.findall(text)]
        return "\n".join(f"{number}:" + "".join(f" {_value(drawn)}" for _ in row.split("\t")) for number, row in rows)
    return _sentence(drawn)


def _texts(asked: str) -> list[str]:
    """The numbered lines of each text that a simulator's prompt shows."""
    return re.split(r"^Text \d+$", asked, flags=re.MULTILINE)[1:]


def _active(number: int, text: str, drawn: random.Random) -> Json:
    pairs = [(int(place), _value(drawn)) for place, _ in _ROW.findall(text)]
    return {"text": number, "active": [{"token": place, "value": value} for place, value in pairs if value]}


def _value(drawn: random.Random) -> int:
    return drawn.choice([0, 0, 0, drawn.randint(1, 10)])


def _sentence(drawn: random.Random) -> str:
    return f"words about {drawn.choice(WORDS)}, {drawn.choice(WORDS)} and {drawn.choice(WORDS)}"
