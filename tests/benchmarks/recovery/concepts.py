"""Planted concepts: what a module responds to, the pattern that a right explanation matches, and a small corpus for each.

All were written before any explainer was run on them. Every second concept of a file belongs to the test half, on which
nobody looks at results while an explainer is tuned.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FOLDER = Path(__file__).parent / "planted"
KINDS = ("topics", "sentiments", "forms", "entities", "styles")


@dataclass(frozen=True)
class Concept:
    """A concept; its module is f(x) = -||e(x) - e(keyword)|| for a sentence embedding e."""

    kind: str
    name: str
    keyword: str
    pattern: str
    corpus: tuple[str, ...]
    held_out: bool
    """Whether it belongs to the test half."""

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern, re.IGNORECASE)

    def matches(self, explanation: str) -> bool:
        """Whether the explanation counts as the concept found again."""
        return self._compiled.search(explanation) is not None


def load_concepts() -> list[Concept]:
    """All concepts, by kind and in the order of their file."""
    concepts = []
    for kind in KINDS:
        rows = tomllib.loads((FOLDER / f"{kind}.toml").read_text(encoding="utf-8"))["concept"]
        for number, row in enumerate(rows):
            corpus = tuple(line for line in row["corpus"].splitlines() if line.strip())
            concepts.append(Concept(kind, row["name"], row["keyword"], row["pattern"], corpus, number % 2 == 1))
    return concepts
