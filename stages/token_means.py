"""The mean activation of a unit on every token of the explain split: what can be predicted without words.

It is the baseline of every score. Each mean is shrunk by one count: taken as if the token had occurred once more, with the unit's
mean activation. So tokens that were seen once or twice say little, and those that were never seen have the unit's mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.execution.stage import Context
from pipeline.schemas import CORPUS, FLOATS, UNIT, Reference, column, unit_table
from pipeline.storage.tables import Tables
from stages.evidence import RecordedUnits

REST = -1
"""The id that stands for all tokens that were not recorded one by one."""


TOKEN_MEANS = unit_table(
    "token_means",
    1,
    *UNIT,
    column(
        "token_ids",
        pa.list_(pa.int32()),
        "tokens of the explain sequences, rising; the id -1 stands for all those that record.token_memory_mb leaves out",
    ),
    column("counts", pa.list_(pa.int32()), "occurrences of each"),
    column("means", FLOATS, "mean activation on each, rounded to record.activation_bits; null where it is not finite"),
    key=["module", "index"],
    refers=[Reference("units", ("module", "index"))],
)


@dataclass(frozen=True)
class TokenMeans:
    """What is known of one unit, in its polarity."""

    means: Mapping[str, float]
    """By the text of a token, in activation units."""
    rest: float
    """That of all other tokens."""
    top: str | None
    """The token whose naming alone would correlate best on the explain split; None where no mean is above the unit's."""


def means_of_units(context: Context, module: str, indices: Sequence[int], polarity: str) -> dict[int, TokenMeans]:
    """The means of some units; of those of an import, which tells no more, the listed tokens by their means and 0 for the rest."""
    texts = context.once("token texts", lambda _: token_texts(context.tables))
    rows = context.tables.read(TOKEN_MEANS, context.tables.is_unit(module, indices)).to_pylist()
    found = {row["index"]: _shrunk(row, texts, 1 if polarity == "+" else -1) for row in rows}
    missing = [index for index in indices if index not in found]
    listed = RecordedUnits.of(context).top_tokens(module, missing, polarity) if missing else {}
    for index, entries in listed.items():
        means = {entry.token: entry.mean_activation for entry in reversed(entries)}
        found[index] = TokenMeans(means, 0.0, next(filter(_nameable, (entry.token for entry in entries)), None))
    return found


def _shrunk(row: Mapping[str, Any], texts: Mapping[int, str], sign: int) -> TokenMeans:
    """The means of a row of TOKEN_MEANS; tokens that look alike (several ids of one text) become one."""
    ids, counts = np.asarray(row["token_ids"]), np.asarray(row["counts"], np.float64)
    sums = sign * np.asarray(row["means"], np.float64) * counts
    known = np.isfinite(sums)
    total, n = float(sums[known].sum()), float(counts[known].sum())
    mean = total / n if n else 0.0
    by_text: dict[str, tuple[float, float]] = {}
    for token_id, summed, count in zip(ids[known].tolist(), sums[known].tolist(), counts[known].tolist(), strict=True):
        if token_id != REST:
            before, seen = by_text.get(texts[token_id], (0.0, 0.0))
            by_text[texts[token_id]] = (before + summed, seen + count)

    def telling(text: str) -> float:
        summed, count = by_text[text]
        return float((summed / count - mean) * np.sqrt(count / max(n - count, 1.0)))

    top = max(filter(_nameable, by_text), key=telling, default=None)
    others = known & (ids == REST)
    return TokenMeans(
        {text: (summed + mean) / (count + 1) for text, (summed, count) in by_text.items()},
        float(sums[others][0] / counts[others][0]) if others.any() else mean,
        top if top is not None and telling(top) > 0 else None,
    )


def _nameable(token: str) -> bool:
    return bool(token.strip()) and '"' not in token


def token_texts(tables: Tables) -> dict[int, str]:
    """The text of each token id of the corpus: the one at its first occurrence in seq_id order."""
    found: dict[int, str] = {}
    for batch in tables.batches(CORPUS, columns=["token_ids", "tokens"]):
        ids, first = np.unique(batch.column("token_ids").flatten().to_numpy(), return_index=True)
        texts = batch.column("tokens").flatten().take(pa.array(first)).to_pylist()
        for token_id, text in zip(ids.tolist(), texts, strict=True):
            found.setdefault(token_id, text)
    return found
