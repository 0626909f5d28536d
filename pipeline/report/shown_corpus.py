"""The sequences that units show, with those before and after them in their documents, as files of a few sequences each."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.data_scripts import write_script
from pipeline.results.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

SEQUENCES_IN_FILE = 32
"""Numbers of sequences that share a file: sequence N is in file N // 32."""
FILES_AT_ONCE = 1_000
"""Files whose sequences are in memory together."""
Json = dict[str, Any]


def write_corpus(run: RunFolder, shown: Iterable[int], folder: Path) -> int:
    """FOLDER/corpus/NUMBER.js for the shown sequences and their neighbours; returns how many sequences there are."""
    if "corpus" not in run.tables:
        return 0
    corpus = run.dataset("corpus")
    places = neighbours(corpus)
    own = places.loc[places.index.intersection(sorted(shown))]
    places = places.loc[sorted({*own.index, *own["before"], *own["after"]} - {-1})]
    for _, some in places.groupby(places.index // (SEQUENCES_IN_FILE * FILES_AT_ONCE)):
        for number, sequences in _files(corpus, some):
            write_script(folder, f"corpus/{number}", sequences)
    return len(places)


def corpus_file(corpus: Any, places: "pd.DataFrame", number: int) -> Json:
    """The file of a number with all its sequences; `places` as `neighbours` gives them."""
    first = number * SEQUENCES_IN_FILE
    own = places.loc[places.index.intersection([*range(first, first + SEQUENCES_IN_FILE)]).sort_values()]
    return dict(_files(corpus, own)).get(number, {})


def _files(corpus: Any, places: "pd.DataFrame") -> Iterator[tuple[int, Json]]:
    """The numbers and the sequences of the files that some places, rising, belong to."""
    table = corpus.to_table(filter=pc.field("seq_id").isin(list(places.index))).sort_by("seq_id")
    rows = zip(table.to_pylist(), places["before"].tolist(), places["after"].tolist(), strict=True)
    for number, group in groupby(rows, key=lambda row: row[0]["seq_id"] // SEQUENCES_IN_FILE):
        yield number, {str(row["seq_id"]): _sequence(row, *ends) for row, *ends in group}


def neighbours(corpus: Any) -> "pd.DataFrame":
    """By seq_id: the sequences that end where it starts, and start where it ends, in its document; -1 where there is none."""
    read = corpus.to_table(columns=["seq_id", "doc_id", "start", "token_ids"])
    lengths = pc.list_value_length(read["token_ids"])
    table = read.drop(["token_ids"]).append_column("length", pc.cast(lengths, pa.int64())).to_pandas()
    table["end"] = table["start"] + table["length"]
    starts = table[["doc_id", "start", "seq_id"]].rename(columns={"start": "end", "seq_id": "after"})
    ends = table[["doc_id", "end", "seq_id"]].rename(columns={"end": "start", "seq_id": "before"})
    found = table.merge(starts.drop_duplicates(["doc_id", "end"]), how="left", on=["doc_id", "end"])
    found = found.merge(ends.drop_duplicates(["doc_id", "start"]), how="left", on=["doc_id", "start"])
    return found.set_index("seq_id")[["before", "after"]].fillna(-1).astype("int64")


def _sequence(row: dict[str, Any], before: int, after: int) -> dict[str, Any]:
    return {"doc": row["doc_id"], "start": row["start"], "before": before, "after": after, "tokens": row["tokens"]}
