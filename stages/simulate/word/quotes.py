"""Takes the quoted strings out of an explanation, so that what is left can be read as English."""

import re
from dataclasses import dataclass

LONGEST_QUOTE = 60
"""Characters; a longer quotation is a passage, not a word, and is read as English."""
MOST = 400
"""Marks of one kind in an explanation; further ones stay in the text."""

QUOTED = "[\ue000-\ue7ff]"
PLACED = "[\ue800-\uefff]"
AFFIXED = "[\uf000-\uf7ff]"
_PRIVATE = re.compile("[\ue000-\uf8ff]")
_STRAIGHT = str.maketrans("“”„‟″«»‘’‚‛`´", '"""""""\'\'\'\'``')
_QUOTE = re.compile(
    r"""'(")'|"(")"|`([^`]{1,60})`|"(?!")([^"]{1,60})"|(?<![\w'])'([^'"]{1,60}|'\w{1,2}|n't)'(?![\w'])"""
)
_ABBREVIATED = (
    (re.compile(r"\be\.? ?g\.", re.I), "such as"),
    (re.compile(r"\bi\.? ?e\.", re.I), "namely"),
    (re.compile(r"\betc\."), ""),
)
_ESCAPES = {"\\n": "\n", "\\t": "\t", "↵": "\n", "⏎": "\n"}


@dataclass(frozen=True)
class Marked:
    """A text in which each quoted string is one private-use character."""

    text: str
    strings: tuple[str, ...]

    def string(self, mark: str) -> str:
        return self.strings[ord(mark) - 0xE000]

    def plain(self, text: str) -> str:
        """Part of the text with the quoted strings back in, without quotation marks."""
        return re.sub(QUOTED, lambda match: self.string(match.group()), text)


def take_quotes(explanation: str) -> Marked:
    """The explanation with its quotation marks made straight and its quoted strings taken out."""
    strings: list[str] = []

    def replace(match: re.Match[str]) -> str:
        inner = next(group for group in match.groups() if group is not None)
        if len(strings) >= MOST or not inner:
            return inner
        strings.append(_clean(inner))
        return chr(0xE000 + len(strings) - 1)

    text = _PRIVATE.sub(" ", explanation).translate(_STRAIGHT)
    for short, meant in _ABBREVIATED:
        text = short.sub(meant, text)
    text = _QUOTE.sub(replace, text).replace('"', " ").replace("`", " ")
    return Marked(re.sub(r"\s+", " ", text).strip(), tuple(strings))


def _clean(quoted: str) -> str:
    """A quoted string without the signs that tokenizers and prompts write for white space."""
    for sign, meant in _ESCAPES.items():
        quoted = quoted.replace(sign, meant)
    quoted = quoted.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n")
    bare = quoted.rstrip(",.;:") if any(letter.isalnum() for letter in quoted) else quoted
    return bare if bare.strip() else quoted
