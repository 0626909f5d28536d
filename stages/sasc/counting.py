"""Count the n-grams of a corpus of any size in bounded memory, and exactly.

Forms are counted in a table in memory. Whenever it is full, it is written to a temporary file, sorted by key and form, and
emptied; at the end the files are read side by side, so that all forms of a key come one after the other. Memory is
bounded by the table and by the n-grams that are kept, disk by the different n-grams of the corpus.
"""

import heapq
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from stages.sasc.ngram_pieces import Ngram

MOST_FORMS = 2_000_000
"""Forms in memory, of about 200 bytes each."""
BATCH = 1 << 14

Entry = tuple[str, str, int]
"""Key, form, and how often the form occurred."""


class NgramCounts:
    """Counts of forms; a context manager, which deletes its temporary files."""

    def __init__(self, read: Callable[[str], Ngram], most: int = MOST_FORMS) -> None:
        """read: what a form says."""
        self._read, self._most = read, most
        self._counts: Counter[str] = Counter()
        self._files: list[Path] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> "NgramCounts":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, forms: Iterable[str]) -> None:
        """Count some forms."""
        self._counts.update(forms)
        if len(self._counts) > self._most:
            self._write()

    def most_frequent(self, limit: int, min_count: int) -> list[tuple[Ngram, int]]:
        """The n-grams with the largest counts, at most `limit`, none below min_count: by falling count, then by text."""
        found = ((count, ngram) for ngram, count in self._ngrams() if count >= min_count)
        best = heapq.nsmallest(limit, found, key=lambda one: (-one[0], one[1].text, one[1].n))
        return [(ngram, count) for count, ngram in best]

    def _ngrams(self) -> Iterator[tuple[Ngram, int]]:
        """Each n-gram, in its commonest form (the first in the order of characters among equals), with its count."""
        for _, entries in groupby(self._entries(), key=lambda entry: entry[0]):
            total, best, most = 0, "", 0
            for form, parts in groupby(entries, key=lambda entry: entry[1]):
                count = sum(part[2] for part in parts)
                total += count
                if count > most:
                    best, most = form, count
            yield self._read(best), total

    def _entries(self) -> Iterator[Entry]:
        """All entries by key and form; a form may come in several parts."""
        return heapq.merge(*map(_read_file, self._files), self._sorted())

    def _sorted(self) -> list[Entry]:
        return sorted((self._read(form).key, form, count) for form, count in self._counts.items())

    def _write(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="ngrams-")
        path = Path(self._folder.name) / f"{len(self._files)}.arrow"
        keys, forms, counts = zip(*self._sorted(), strict=True)
        table = pa.table({"key": keys, "form": forms, "count": pa.array(counts, pa.int64())})
        with pa.OSFile(str(path), "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table, max_chunksize=BATCH)
        self._files.append(path)
        self._counts.clear()


def _read_file(path: Path) -> Iterator[Entry]:
    with pa.OSFile(str(path), "rb") as stream, pa.ipc.open_file(stream) as reader:
        for number in range(reader.num_record_batches):
            columns = [column.to_pylist() for column in reader.get_batch(number).columns]
            yield from zip(*columns, strict=True)
