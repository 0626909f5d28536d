"""The texts in a model's reply: JSON, or a list with a text on each line."""

import json
import re
from typing import Any

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"texts": {"type": "array", "items": {"type": "string"}}},
    "required": ["texts"],
    "additionalProperties": False,
}
LONGEST_REPLY = 20_000
_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)
_FENCE = re.compile(r"^\s*```\w*[ \t]*$", re.MULTILINE)
_ITEM = re.compile(r"^[ \t]*(?:\*\*)?\(?(\d{1,3})[.):](?:\*\*)?[ \t]+(?=\S)", re.MULTILINE)
_BULLET = re.compile(r"^[ \t]*[-*•][ \t]+", re.MULTILINE)
_PAIRS = {'"': '"', "“": "”", "«": "»"}


def read_texts(reply: str, *, finished: bool) -> list[str]:
    """The texts of a reply, in order.

    They are the strings of its JSON list; without one, the items whose numbers follow one another from 1, so that "In
    1969" or a line that begins with "3. Liga" is no new item; without those, its bullets, else its lines.

    Args:
        finished: False where the token limit cut the reply; the last text is left out then.
    """
    text = _FENCE.sub("", _THOUGHT.sub("", reply)).strip()[:LONGEST_REPLY]
    found = _from_json(text)
    if found is None:
        found = _numbered(text) or _bulleted(text) or text.splitlines()
        found = found if finished else found[:-1]
    return [tidied for one in found if (tidied := _tidy(one))]


def _from_json(text: str) -> list[str] | None:
    """Strings of the first list of strings that can be read; those before the cut where the reply was cut."""
    decoder = json.JSONDecoder(strict=False)
    for match in re.finditer(r'\[\s*(?=")', text):
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            return _strings(text, match.end(), decoder) or None
        if all(isinstance(one, str) for one in value):
            return list(value)
    return None


def _strings(text: str, place: int, decoder: json.JSONDecoder) -> list[str]:
    """Strings with commas between them, from a place on, as far as they go."""
    found: list[str] = []
    while place < len(text) and text[place] == '"':
        try:
            value, place = decoder.raw_decode(text, place)
        except ValueError:
            break
        found.append(value)
        following = re.compile(r"\s*,\s*").match(text, place)
        if following is None:
            break
        place = following.end()
    return found


def _numbered(text: str) -> list[str]:
    """Items whose numbers are 1, 2, 3 and so on, each at the start of a line."""
    starts: list[tuple[int, int]] = []
    for match in _ITEM.finditer(text):
        if int(match[1]) == len(starts) + 1:
            starts.append(match.span())
    ends = [*(begin for begin, _ in starts[1:]), *([len(text)] if starts else [])]
    return [_first_paragraph(text[stop:end]) for (_, stop), end in zip(starts, ends, strict=True)]


def _bulleted(text: str) -> list[str]:
    parts = _BULLET.split(text)
    return [_first_paragraph(part) for part in parts[1:]]


def _first_paragraph(text: str) -> str:
    """Up to the first blank line: what follows the last item is no part of it."""
    return re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]


def _tidy(text: str) -> str:
    """One line without the quotes around the whole."""
    text = " ".join(text.split())
    while len(text) > 1 and _PAIRS.get(text[0]) == text[-1] and not {text[0], text[-1]} & set(text[1:-1]):
        text = text[1:-1].strip()
    return text
