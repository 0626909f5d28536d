"""Sequences that look like what makes a unit active: close to its exemplars, or exemplars of the units closest to it.

A unit is represented, in each polarity and split, by the mean embedding of its top exemplars there. So what is found for
one split depends on that split alone. Shapes: N sequences, D dimensions of an embedding.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, zip_longest

import numpy as np
import numpy.typing as npt
import pyarrow.dataset as ds

from pipeline.config import RunConfig
from pipeline.schemas import EXEMPLARS
from pipeline.storage.tables import Tables
from stages.record.embeddings import Embeddings
from stages.units import draw, module_widths

NEIGHBOURS = 8
"""Nearest units whose exemplars are looked at."""
OTHERS = 256
"""Units of the module among which neighbours are looked for, drawn by the seed."""
MEAN_OF = 5
"""Top exemplars, from rank 0 on, by which those are represented."""

Part = tuple[str, str]
"""A polarity and a split."""
Tops = Mapping[tuple[int, str, str], tuple[list[int], list[float]]]
"""seq_ids and largest activations, in the polarity, of the top exemplars by index, polarity and split, in order of rank."""
Floats = npt.NDArray[np.float32]


def top_exemplars(tables: Tables, module: str, indices: Sequence[int]) -> Tops:
    """The top exemplars of some units."""
    where = tables.is_unit(module, indices) & (ds.field("band") == "top")
    key = ["index", "polarity", "split"]
    rows = tables.read(EXEMPLARS, where, [*key, "rank", "seq_id", "max_activation"]).to_pandas()
    rows["value"] = rows["max_activation"].where(rows["polarity"] == "+", -rows["max_activation"])
    groups = rows.sort_values([*key, "rank"]).groupby(key)
    return {part: (group["seq_id"].tolist(), group["value"].tolist()) for part, group in groups}


class Neighbourhood:
    """The units of a module among which neighbours are looked for."""

    def __init__(self, module: str, tables: Tables, embeddings: Embeddings, config: RunConfig) -> None:
        width = module_widths(tables)[module]
        units = sorted(draw(config.run.seed, f"neighbours/{module}").permutation(width)[:OTHERS].tolist())
        tops = top_exemplars(tables, module, units)
        embeddings.of(sorted({seq_id for seq_ids, _ in tops.values() for seq_id in seq_ids[:MEAN_OF]}))  # all at once
        self._units: dict[Part, list[int]] = {}
        self._means: dict[Part, Floats] = {}
        self._tops = tops
        for part in dict.fromkeys(key[1:] for key in tops):
            of_part = [key for key in tops if key[1:] == part]
            self._units[part] = [index for index, *_ in of_part]
            self._means[part] = np.stack([direction(embeddings.of(tops[key][0][:MEAN_OF])) for key in of_part])

    def exemplars(self, index: int, part: Part, towards: Floats, without: set[int]) -> Iterable[int]:
        """Exemplars of the units nearest to a direction, by rank, nearer units before farther ones.

        Args:
            index: the unit itself, which is none of them.
            without: seq_ids to leave out.
        """
        nearness = self._means[part] @ towards if part in self._units else np.zeros(0, np.float32)
        order = [place for place in np.argsort(-nearness, kind="stable").tolist() if self._units[part][place] != index]
        lists = [self._tops[self._units[part][place], *part][0] for place in order[:NEIGHBOURS]]
        in_turn = (seq_id for rank in zip_longest(*lists) for seq_id in rank if seq_id is not None)
        return (seq_id for seq_id in dict.fromkeys(in_turn) if seq_id not in without)


def similar(embeddings: Embeddings, split: str, towards: Floats, without: set[int]) -> Iterable[int]:
    """Sequences of the pool of a split, the nearest to a direction first; between equals the lower seq_id."""
    seq_ids, vectors = embeddings.pool[split]
    order = np.argsort(-(vectors @ towards), kind="stable") if len(seq_ids) else np.zeros(0, np.int64)
    return (seq_id for seq_id in seq_ids[order].tolist() if seq_id not in without)


def direction(vectors: Floats) -> Floats:
    """The mean of N vectors, scaled to length 1: (N, D) -> (D,)"""
    mean = vectors.astype(np.float64).mean(axis=0)
    scaled: Floats = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
    return scaled


def candidates(
    key: tuple[int, str, str], tops: Tops, embeddings: Embeddings, others: Neighbourhood, counts: Mapping[str, int]
) -> dict[str, list[int]]:
    """Sequences to try as hard negatives of a unit in a polarity and split, by kind, the hardest first.

    Args:
        counts: how many of each kind at most.
    """
    index, polarity, split = key
    own = set(tops[key][0])
    towards = direction(embeddings.of(tops[key][0]))
    near = {
        "similar": similar(embeddings, split, towards, own),
        "neighbour": others.exemplars(index, (polarity, split), towards, own),
    }
    return {kind: list(islice(near[kind], count)) for kind, count in counts.items()}
