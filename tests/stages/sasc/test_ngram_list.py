"""Counts are exact whatever the memory, and the most frequent n-grams are listed in one order."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from stages.sasc.ngram_list import most_frequent
from stages.sasc.ngram_pieces import read_words, word_forms

VOCABULARY = ["The", "the", "THE", "sea", "Sea", ",", "is", "a", "tale", "."]


def texts(count: int) -> list[str]:
    """Few words, so that n-grams, their forms and their counts are often equal."""
    rng = np.random.default_rng(3)
    spaces = [" ", "\n", "  "]
    return [
        "".join(str(rng.choice(VOCABULARY)) + str(rng.choice(spaces)) for _ in range(int(rng.integers(1, 9))))
        for _ in range(count)
    ]


def twin(documents: list[str], sizes: list[int]) -> list[tuple[str, int, int]]:
    """Text, n and count of all n-grams, one after another in the plainest way."""
    forms: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for document in documents:
        words = document.split()
        for n in sizes:
            for start in range(len(words) - n + 1):
                part = words[start : start + n]
                forms[tuple(word.lower() for word in part)][" ".join(part)] += 1
    found = []
    for key, counter in forms.items():
        text = min(counter, key=lambda form: (-counter[form], form.replace(" ", "\x1f ")))
        found.append((text, len(key), counter.total()))
    return sorted(found, key=lambda one: (-one[2], one[0], one[1]))


def listed(documents: list[str], most: int, limit: int = 10_000, min_count: int = 1) -> list[tuple[str, int, int]]:
    forms = ([form for form, *_ in word_forms(document, [1, 2, 3])] for document in documents)
    found = most_frequent(forms, read_words, limit, min_count, most).to_pydict()
    assert found["ngram_id"] == list(range(len(found["text"])))
    return list(zip(found["text"], found["n"], found["count"], strict=True))


@pytest.mark.parametrize("most", [10_000, 300, 7])
def test_counts_are_those_of_the_twin_whatever_the_memory(most: int) -> None:
    documents = texts(120)
    assert listed(documents, most) == twin(documents, [1, 2, 3])


def test_the_most_frequent_are_kept_and_ties_go_by_text() -> None:
    documents = texts(120)
    everything = twin(documents, [1, 2, 3])
    assert listed(documents, 50, limit=37) == everything[:37]
    assert everything[36][2] == everything[37][2], "the cut is within a tie"
    assert listed(documents, 50, min_count=4) == [one for one in everything if one[2] >= 4]


def test_temporary_files_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert listed(["a b c d e"], 3)
    assert not list(tmp_path.rglob("*"))
