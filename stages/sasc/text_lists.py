"""The texts in a model's reply: JSON, or a list, however its items are marked."""

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from pipeline.llm.engine import valid_text
from stages.sasc.ngram_pieces import normalised_text, word_spans

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"texts": {"type": "array", "items": {"type": "string"}}},
    "required": ["texts"],
    "additionalProperties": False,
}
LONGEST_REPLY = 20_000
_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)|\A.*</think(?:ing)?>", re.DOTALL)
_FENCE = re.compile(r"^\s*```\w*[ \t]*$", re.MULTILINE)
_WORD = r"(?:text|sentence|example|item|passage)"
_DASH = r"[-*•·+–—]"
_ITEM = re.compile(
    rf"""^[ \t>]*(?:{_DASH}[ \t]+)?(?:\#+[ \t]+)?[*_]*(?:{_WORD}[ \t]*)?
    (?:\#(?P<plain>\d{{1,3}})[ \t]                                # #1 and a space
      |\#?[\[(]?(?P<marked>\d{{1,3}})
       (?:[*_]*\\?[.):\]．、][*_]*(?=[ \t]|[^\W\d_]|["“«'‘*_])  # 1. 1) 1: (1) [1] **1.** or 1.Text, but not 1.5
         |[*_]*[ \t]*[-–—][ \t]))                                # 1 - or 1-
    [ \t]*(?=\S)""",
    re.MULTILINE | re.IGNORECASE | re.VERBOSE,
)
"""A number at the start of a line that may be that of an item, as it is or behind a dash, a hash, or a word such as Text."""
_LETTERED = re.compile(
    rf"^[ \t>]*(?:{_DASH}[ \t]+)?[*_]*\(?(?P<letter>[A-Za-z])[*_]*[.)][*_]*[ \t]+(?=\S)", re.MULTILINE
)
"""A letter at the start of a line: a) a. (a) **a.**, but not "A: Hello", as in a dialogue."""
_FIRST_OF_LINE = re.compile(r"[ \t]*(\(?)1([.)])[ \t]")
_IN_LINE = 3
"""Items of a list within one line, at least: fewer may be one text with a number in it."""
_STOPS = (".", "!", "?", '."', '!"', '?"', ".”", "!”", "?”")
_BULLET = re.compile(rf"^[ \t]*{_DASH}[ \t]+", re.MULTILINE)
_AFTER_ITEM = re.compile(rf"\n\s*\n|\n[ \t]*{_DASH}[ \t]")
_VALUE = re.compile(r"^[ \t]*\[(?=\s*[\"{])|\{(?=\s*\")", re.MULTILINE)
_STRINGS = re.compile(r"\[\s*\"(.*?)(?:\"\s*,?\s*\]\s*\}?\s*\Z|\Z)", re.DOTALL)
_LABEL = re.compile(rf"{_WORD}\s*:\s+|\*\*[^*]{{1,60}}(?::\*\*|\*\*\s*:)\s*", re.IGNORECASE)
_PAIRS = {'"': '"', "“": "”", "„": "“", "«": "»", "'": "'", "‘": "’", "*": "*", "_": "_", "`": "`"}


def read_texts(reply: str, *, finished: bool, wanted: int = 2) -> list[str]:
    """The texts of a reply, in order.

    They are the strings of its JSON; without any, the items whose numbers follow one another from 1 (or 0), so that "In 1969"
    or a line that begins with "3. Liga" is no new item; without those the items whose letters do, its bullets, its paragraphs,
    or else its lines. A single line is a list only where it can be nothing else (see `_in_line`), and a text only where
    one was wanted.

    Args:
        finished: False where the token limit cut the reply; the last text is left out then.
        wanted: texts that were asked for.
    """
    text = _FENCE.sub("", _THOUGHT.sub("", reply)).strip()[:LONGEST_REPLY]
    found = _from_json(text)
    if found is None:
        found = (
            _in_line(text, wanted) or _numbered(text) or _lettered(text) or _bulleted(text) or _paragraphs(text, wanted)
        )
        found = found if finished else found[:-1]
    else:
        numbered, lettered = (read("\n".join(found)) for read in (_numbered, _lettered))
        found = next((items for items in (numbered, lettered) if len(items) == len(found)), found)
    return [tidied for one in found if (tidied := _tidy(valid_text(one)))]


def _from_json(text: str) -> list[str] | None:
    """Strings of the value that says most, or of all where each has one; those before the cut or the error of a torn list."""
    decoder = json.JSONDecoder(strict=False)
    lists, place = [], 0
    while match := _VALUE.search(text, place):
        try:
            value, place = decoder.raw_decode(text, match.end() - 1)
        except (ValueError, RecursionError):
            place = match.end()
        else:
            lists.append(_strings(value))
    if any(lists):
        several = [one for one in lists if len(one) > 1]
        return max(several, key=lambda one: sum(map(len, one))) if several else [text for one in lists for text in one]
    return _torn(text) if _VALUE.search(text) else None


def _strings(value: Any) -> list[str]:
    """The strings in a list, or in the first list of an object; of an object in a list the longest."""
    if isinstance(value, dict):
        lists = [one for one in value.values() if isinstance(one, list)]
        value = lists[0] if lists else list(value.values())
    found = []
    for one in value if isinstance(value, list) else ():
        within = [part for part in (one.values() if isinstance(one, dict) else [one]) if isinstance(part, str)]
        found += [max(within, key=len)] if within else []
    return found


def _torn(text: str) -> list[str] | None:
    """Strings of a list that is no JSON: it was cut, or has quotes or a comma too many."""
    match = _STRINGS.search(text)
    if match is None:
        return None
    parts = re.split(r'"\s*,\s*"', match[1])
    whole = parts if match.end() > match.end(1) else parts[:-1]
    return [_unescaped(part) for part in whole]


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text


def _numbered(text: str) -> list[str]:
    """Items whose numbers follow one another from 1 or 0, each at the start of a line."""
    marks: list[re.Match[str]] = []
    due = 0
    for match in _ITEM.finditer(text):
        number = int(match["plain"] or match["marked"])
        if number == due or (not marks and number == 1):
            marks.append(match)
            due = number + 1
    return _items(_behind(marks, text))


def _behind(marks: list[re.Match[str]], text: str) -> list[str]:
    """What stands behind each mark, up to the next one."""
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return [text[mark.end() : end] for mark, end in zip(marks, ends, strict=False)]


def _lettered(text: str) -> list[str]:
    """Items of one line each whose letters follow one another from a; none where another line stands between them."""
    lines = [line for line in text.splitlines() if line.strip()]
    letters = [match["letter"] if (match := _LETTERED.match(line)) else "" for line in lines]
    first = next((place for place, letter in enumerate(letters) if letter in ("a", "A")), len(lines))
    count = 0
    while first + count < len(lines) and letters[first + count] == chr(ord(letters[first]) + count):
        count += 1
    if count < 2 or any(letters[first + count :]):
        return []
    return [_LETTERED.sub("", line) for line in lines[first : first + count]]


def _in_line(text: str, wanted: int) -> list[str]:
    """Items within a line: exactly as many as were wanted, and at least _IN_LINE, of a reply whose other lines have no number.

    Either each number from 1 on stands there once, in order and with the same mark, and the next one does not, or
    semicolons stand between whole sentences. Otherwise a number or a semicolon may belong to a text.
    """
    if wanted < _IN_LINE:
        return []
    lines = [line for line in text.splitlines() if line.strip()]
    listed = [line for line in lines if _ITEM.match(line)]
    if len(listed) == 1 and (first := _FIRST_OF_LINE.match(listed[0])):
        numbers = re.finditer(rf"(?<!\S){re.escape(first[1])}(\d{{1,3}}){re.escape(first[2])}\s+", listed[0])
        marks = [mark for mark in numbers if 0 < int(mark[1]) <= wanted + 1]
        if [int(mark[1]) for mark in marks] == list(range(1, wanted + 1)):
            return _behind(marks, listed[0])
    parts = re.split(r";\s+", lines[0].strip()) if len(lines) == 1 else []
    return parts if len(parts) == wanted and all(part.endswith(_STOPS) for part in parts) else []


def _bulleted(text: str) -> list[str]:
    return _items(_BULLET.split(text)[1:])


def _items(parts: list[str]) -> list[str]:
    """What belongs to each item: no further paragraph, and nothing behind the last one where items are lines."""
    found = [_AFTER_ITEM.split(part.strip(), maxsplit=1)[0] for part in parts]
    if len(found) > 1 and not any("\n" in one for one in found[:-1]):
        found[-1] = found[-1].partition("\n")[0]
    return found


def _paragraphs(text: str, wanted: int) -> list[str]:
    """Parts between blank lines; without any the lines, if there are several or one was wanted."""
    parts = re.split(r"\n\s*\n", text)
    found = parts if len(parts) > 2 else text.splitlines()
    return found if len(found) > 1 or wanted == 1 else []


def _tidy(text: str) -> str:
    """One line without a label in front, and without marks of stress or quotes around the whole."""
    text = " ".join(text.split())
    if label := _LABEL.match(text):
        text = text[label.end() :]
    text = text.replace("**", "")
    if text.endswith(('",', "”,")):
        text = text[:-1]
    while len(text) > 1 and _PAIRS.get(text[0]) == text[-1] and not {text[0], text[-1]} & set(text[1:-1]):
        text = text[1:-1].strip()
    return text


LEAST_WORDS = 3
LONGEST = 600
"""Characters of a text at most."""
LETTERS = 0.6
"""Share of a text's characters besides white space that have to be letters."""
LEAK_WORDS = 5
"""Words in a row of the request that a text may not repeat."""
_ABOUT_IT = re.compile(
    r"(?:sure|certainly|absolutely|of course|okay|ok|here(?:['’]s| are| is)|below (?:are|is)|the following|these|as requested|"
    r"i(?:['’]m| am) (?:sorry|unable)|(?:unfortunately,? )?i (?:cannot|can['’]?t|won['’]t|hope)|hope|(?:please )?let me know|"
    r"(?:please )?feel free|as an ai|as a (?:large )?language model|notes?|each|all of|none of)\b",
    re.IGNORECASE,
)
"""How a sentence begins that may be about the list and not a text of it."""
_LIST = re.compile(
    r"\b(?:texts?|sentences?|examples?|passages?|list|help(?:s|ful)?|descriptions?|language model|assist|requests?|need "
    r"(?:more|any|further)|fulfil+)\b",
    re.IGNORECASE,
)
_FITTING = re.compile(
    r"\b(?:fit|match|fulfil)(?:s|es|ting|ing)? (?:this|your|the given|the) description\b", re.IGNORECASE
)
_QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”")
_NO_TEXT = ("{", "[", "|", "<", "```")
"""Beginnings of what is left of a list in some notation, and of no text."""


def usable(texts: Sequence[str], taken: Sequence[str], request: str = "") -> list[str]:
    """The texts that are texts, say nothing of the request, and repeat neither one another nor those taken."""
    seen = {normalised_text(text) for text in taken}
    found = []
    for text in texts:
        same = normalised_text(text)
        if same not in seen and is_text(text) and not (request and leaks(text, request)):
            seen.add(same)
            found.append(text)
    return found


def is_text(text: str) -> bool:
    """Whether this is a text at all: words, mostly of letters, not a lecture, and no notation of a list."""
    bare = "".join(text.split())
    letters = sum(unicodedata.category(character)[0] in "LM" for character in bare)
    words = sum(text[start].isalnum() for start, _ in word_spans(text))
    return (
        words >= LEAST_WORDS
        and len(text) <= LONGEST
        and letters >= LETTERS * len(bare)
        and not text.startswith(_NO_TEXT)
    )


def leaks(text: str, request: str) -> bool:
    """Whether a text talks about what was asked: LEAK_WORDS words in a row of the request, or about the list itself.

    What the request quotes, such as a phrase that texts are to hold, may stand in them.
    """
    if _FITTING.search(text) or (_ABOUT_IT.match(text) and (text.rstrip().endswith(":") or _LIST.search(text))):
        return True
    asked, said = f" {normalised_text(_QUOTED.sub(' | ', request))} ", normalised_text(text).split()
    runs = (said[start : start + LEAK_WORDS] for start in range(len(said) - LEAK_WORDS + 1))
    return any(f" {' '.join(run)} " in asked for run in runs)
