"""Text that a terminal shows and does not obey.

Texts of corpora, of models and of servers can hold escape sequences, which move the cursor or set the title, and marks of direction, which
reorder what is read. Whatever prints such text passes it through here.
"""

import re

_NOT_LAYOUT = re.compile(r"[^\n\t]+")


def safe(text: str) -> str:
    """Text in which control characters, escape sequences and marks of direction are written out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def safe_lines(text: str) -> str:
    """The same of text in lines: ends of lines and tabs stay."""
    return _NOT_LAYOUT.sub(lambda part: safe(part[0]), text)
