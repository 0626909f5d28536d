"""The explanation in a model's reply, however it is wrapped, or none where the reply is of no use."""

import contextlib
import json
import re
from typing import Any, NamedTuple

from pipeline.llm.engine import Completion, valid_text
from stages.asking import json_objects

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"explanation": {"type": "string"}},
    "required": ["explanation"],
    "additionalProperties": False,
}
"""What a reply is where the model's server sees to schemas."""
LONGEST = 500
"""Characters of an explanation at most; a longer text is a lecture or a list."""
LONGEST_REPLY = 4_000
"""Characters of a reply that is read; a longer one ran astray."""
LEAST_LETTERS = 3
ECHO_WORDS = 6
"""A sentence of the instruction with this many words or more is not part of an explanation."""

_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)
_MARKER = re.compile(
    r"^[^\w\n]*(?:\w+ ){0,3}explanation(?: of (?:the |this )?neuron(?: \d+)?)?(?:, as JSON)?(?: is)?[\])*_\"' ]*[:：][\s*_]*",
    re.IGNORECASE | re.MULTILINE,
)
_VALUE = re.compile(r"""["']explanation["']\s*:\s*(["'])(.*?)\1?\s*\}?\s*(?:```\s*)?\Z""", re.DOTALL | re.IGNORECASE)
_HALF_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\(?:u[0-9a-fA-F]{0,3})?\Z")
_FENCE = re.compile(r"^\s*```\w*[ \t]*$|```", re.MULTILINE)
_BULLET = re.compile(r"^(?:[-*•]|\d+[.)])\s+")
_QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "`": "`", "*": "*", "_": "_"}
_REFUSAL = re.compile(
    r"(?:i(?:'m| am) (?:very )?sorry\b|sorry,|as an ai\b|i apologi[sz]e\b|(?:unfortunately, |sorry, (?:but )?)?"
    r"i(?: cannot| can't| could not| couldn't|(?:'m| am) (?:unable|not able) to|(?: was|'m) not able to) "
    r"(?:\w+ly )?(?:answer|assist|complete|comply|describe|determine|discern|do|explain|find|fulfil|give|help|identify|"
    r"infer|offer|provide|say|see|summari[sz]e|tell)\b)",
    re.IGNORECASE,
)


class Said(NamedTuple):
    """What a reply says."""

    text: str
    """Empty where it says nothing that can be used."""
    whole: bool = True
    """False where the token limit cut it off within its only sentence."""


def read_explanation(reply: Completion, instruction: str) -> Said:
    """The explanation in a reply to `instruction`.

    It is the last JSON object's `explanation`, be it in prose, in a code fence, or cut by the token limit; without one,
    what follows the last "Explanation:" that begins a line; without that, the first paragraph that does not end with a
    colon.
    """
    text = _THOUGHT.sub("", reply.text).strip()
    if len(text) > LONGEST_REPLY:
        return Said("")
    found = _from_json(text)
    if found is None:
        said = text[max((match.end() for match in _MARKER.finditer(text)), default=0) :]
        paragraphs = [part.strip() for part in re.split(r"\n\s*\n", _FENCE.sub("", said))]
        found = next((part for part in paragraphs if part and not part.endswith((":", "："))), "")
        if "\t" in found or found.startswith(('{"', "{'")):
            return Said("")
    return usable(found, reply.finished, instruction)


def usable(text: str, finished: bool, instruction: str) -> Said:
    """A text as an explanation: on one line, without quotes around the whole, and of a text that was cut its full sentences.

    It says nothing with fewer than three letters, with more than LONGEST characters, with a mark of a prompt, as a refusal
    ("I cannot determine ..."), or as an echo of the instruction.
    """
    text = _BULLET.sub("", " ".join(valid_text(text).split()))
    if not finished and ". " in text:
        text = text[: text.rindex(". ") + 1]
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and not {text[0], text[-1]} & set(text[1:-1].strip("*_")):
        text = text[1:-1].strip()
    if sum(map(str.isalpha, text)) < LEAST_LETTERS or len(text) > LONGEST or "<start>" in text or "<end>" in text:
        return Said("")
    if _REFUSAL.match(text) or _echoes(text, instruction):
        return Said("")
    return Said(text, finished or text.endswith((".", "!", "?")))


def _from_json(text: str) -> str | None:
    """The `explanation` of the last object that has one; None without such an object."""
    found = None
    for value in json_objects(text):
        for key, content in value.items():
            if key.strip().lower() == "explanation":
                found = content if isinstance(content, str) else ""
    if found is None and (match := _VALUE.search(text)):  # cut short, or quoted as Python does it
        found = _HALF_ESCAPE.sub("", match[2])
        with contextlib.suppress(ValueError):
            found = str(json.loads(f'"{found}"', strict=False))
    return found


def _echoes(text: str, instruction: str) -> bool:
    said, asked = _folded(text), _folded(instruction)
    sentences = [_folded(part) for part in re.split(r"[.:;\n]\s", instruction)]
    repeated = [sentence for sentence in sentences if sentence in said and sentence.count(" ") + 1 >= ECHO_WORDS]
    return bool(repeated) or (said in asked and said.count(" ") >= 2)


def _folded(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
