"""Sequences that look like what makes a unit active: close to its exemplars, or exemplars of the units closest to it.

Closeness is that of sentence embeddings. The first POOL sequences of each split, a uniform sample because the corpus is shuffled,
are embedded beforehand; others when they are first asked for. A unit is represented, in each polarity and split, by the mean
embedding of its top exemplars there. So what is found for one split depends on that split alone.

Shapes: N sequences, D dimensions of an embedding.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.execution.stage import Context
from pipeline.schemas import EXEMPLARS, TableSchema, column
from pipeline.storage.tables import Tables
from stages.evidence import SPLITS, RecordedUnits
from stages.record.sequences import first_of_splits, split_numbers
from stages.settings import Simulate
from stages.units import draw, module_widths

if TYPE_CHECKING:
    from pipeline.subjects.embedder import Embedder

POOL = 4096
"""Sequences of each split that are embedded at most; all 12,288 of 64 tokens take one core about five minutes."""
NEIGHBOURS = 8
"""Nearest units whose exemplars are looked at."""
OTHERS = 256
"""Units of the module among which neighbours are looked for, drawn by the seed."""
MEAN_OF = 5
"""Top exemplars, from rank 0 on, by which those are represented."""

EMBEDDINGS = TableSchema(
    "embeddings",
    1,
    pa.schema(
        [
            column("seq_id", pa.int64(), "the sequence in `corpus`"),
            column("vector", pa.list_(pa.float32()), "embedding of its text, of length 1"),
        ]
    ),
    folder="_partials/embeddings",
)

Key = tuple[int, str, str]
"""Index, polarity, split."""
Tops = Mapping[Key, tuple[list[int], list[float]]]
"""seq_ids and largest activations, in the polarity, of the top exemplars, in order of rank."""
Floats = npt.NDArray[np.float32]


def pool_of(start: int, stop: int) -> npt.NDArray[np.int64]:
    """The seq_ids from `start` to `stop` that are in the pool, rising."""
    found = first_of_splits(stop, [POOL] * len(SPLITS))
    return found[found >= start]


def open_embedder(context: Context) -> "Embedder":
    """The sentence embedder of the run file, made once."""
    from pipeline.subjects.embedder import load_embedder

    return context.once("embedder", lambda config: load_embedder(config[Simulate].embedder))


class Embeddings:
    """Vectors of sequences of the corpus: those of the pool as stored, others embedded when they are first asked for."""

    def __init__(self, context: Context) -> None:
        """context: of a stage that reads record.embed and corpus."""
        self._context = context
        rows = context.tables.read(EMBEDDINGS).sort_by("seq_id")
        seq_ids = rows["seq_id"].to_numpy()
        flat = rows["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        vectors, splits = flat.reshape(len(seq_ids), -1), split_numbers(seq_ids)
        self.pool = {split: (seq_ids[splits == n], vectors[splits == n]) for n, split in enumerate(SPLITS)}
        """(N,) seq_ids, rising, and (N, D) vectors of each split."""
        self._known: dict[int, Floats] = dict(zip(seq_ids.tolist(), vectors, strict=True))

    def of(self, seq_ids: Sequence[int]) -> Floats:
        """(N, D) vectors in the order of the seq_ids."""
        missing = sorted(set(seq_ids) - self._known.keys())
        if missing:
            texts = RecordedUnits.of(self._context).tokens(missing)
            vectors = open_embedder(self._context).encode(["".join(texts[seq_id]) for seq_id in missing])
            self._known.update(zip(missing, vectors, strict=True))
        return np.stack([self._known[seq_id] for seq_id in seq_ids])

    def prepare(self, tops: Tops, most: int | None = None) -> None:
        """Embed the first of some top exemplars all at once."""
        seq_ids = {seq_id for seq_ids, _ in tops.values() for seq_id in seq_ids[:most]}
        if seq_ids:
            self.of(sorted(seq_ids))

    def similar(self, split: str, towards: Floats) -> list[int]:
        """Sequences of the pool of a split, the nearest to a direction first; between equals the lower seq_id."""
        seq_ids, vectors = self.pool[split]
        found: list[int] = seq_ids[np.argsort(-(vectors @ towards), kind="stable")].tolist()
        return found


def top_exemplars(tables: Tables, module: str, indices: Sequence[int]) -> Tops:
    """The top exemplars of some units."""
    where = tables.is_unit(module, indices) & (pc.field("band") == "top")
    key = ["index", "polarity", "split"]
    rows = tables.read(EXEMPLARS, where, [*key, "rank", "seq_id", "max_activation"]).to_pandas()
    rows["value"] = rows["max_activation"].where(rows["polarity"] == "+", -rows["max_activation"])
    groups = rows.sort_values([*key, "rank"]).groupby(key)
    return {part: (group["seq_id"].tolist(), group["value"].tolist()) for part, group in groups}


class Neighbourhood:
    """The units of a module among which neighbours are looked for."""

    def __init__(self, module: str, tables: Tables, embeddings: Embeddings, seed: int) -> None:
        width = module_widths(tables)[module]
        units = sorted(draw(seed, f"neighbours/{module}").permutation(width)[:OTHERS].tolist())
        self._tops = top_exemplars(tables, module, units)
        embeddings.prepare(self._tops, MEAN_OF)
        self._means = {key: direction(embeddings.of(tops[:MEAN_OF])) for key, (tops, _) in self._tops.items()}

    def exemplars(self, index: int, polarity: str, split: str, towards: Floats) -> list[int]:
        """Exemplars of the units nearest to a direction, without the unit itself, by rank, those of nearer units first."""
        keys = [key for key in self._tops if key[1:] == (polarity, split)]
        if not keys:
            return []
        order = np.argsort(-(np.stack([self._means[key] for key in keys]) @ towards), kind="stable")
        nearest = [keys[place] for place in order if keys[place][0] != index][:NEIGHBOURS]
        in_turn = zip_longest(*(self._tops[key][0] for key in nearest))
        return list(dict.fromkeys(seq_id for rank in in_turn for seq_id in rank if seq_id is not None))


def direction(vectors: Floats) -> Floats:
    """The mean of N vectors, scaled to length 1: (N, D) -> (D,)"""
    mean = vectors.astype(np.float64).mean(axis=0)
    scaled: Floats = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
    return scaled


def candidates(
    key: Key, tops: Tops, embeddings: Embeddings, others: Neighbourhood, counts: Mapping[str, int]
) -> dict[str, list[int]]:
    """Sequences to try as hard negatives of a unit in a polarity and split, by kind, the hardest first.

    Args:
        counts: how many of each kind at most.
    """
    own = tops[key][0]
    towards = direction(embeddings.of(own))
    near = {"similar": embeddings.similar(key[2], towards), "neighbour": others.exemplars(*key, towards)}
    return {kind: [seq_id for seq_id in near[kind] if seq_id not in own][:count] for kind, count in counts.items()}
