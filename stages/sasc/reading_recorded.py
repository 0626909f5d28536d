"""Responses to n-grams from the sequences that `record` has kept for a unit: no pass over any text, and no model.

An occurrence is read as in a pass over the corpus (stages/sasc/readings.py): the activations on its tokens are pooled, and
the response is the mean over occurrences. These are the ones in the unit's exemplars of the split `explain`, of the bands
top, quantile and random, each sequence once. An n-gram without an occurrence there is no n-gram of the unit. Activations are
as recorded, rounded to record.activation_bits; an occurrence on a token without a recorded one is left out. Activations keep
their sign, so the n-grams of '-' are those with the smallest responses.

Sigma is the standard deviation over the n-grams (Singh et al. 2023), but over other n-grams for every unit and polarity, many
of them in sequences that were kept because the unit is strong there. Strong responses weigh more in it than they do in the
corpus, and means over few occurrences spread more. So scores are to be compared with one another, not with those of other
readings. Null units are black boxes, whose sigma is over the whole list.

Shapes: K windows of a unit, T tokens, M occurrences or n-grams that occur, N n-grams of the list.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import RunConfig
from pipeline.execution.stage import Context, chunks
from pipeline.schemas import CORPUS
from pipeline.storage.tables import Tables
from stages.evidence import Exemplar, RecordedUnits
from stages.sasc import Sasc
from stages.sasc.sasc_contracts import Chosen, Ngrams, Reading
from stages.sasc.sasc_tables import NGRAM_PARTIALS
from stages.sasc.sasc_units import polarities_of, units_of
from stages.settings import Record
from stages.units import module_widths

if TYPE_CHECKING:
    import torch

    from pipeline.subjects.text_functions import Pool
    from stages.sasc.occurrences import Ints, Places

SHARD_UNITS = 512
"""Units of a shard, whose windows are all in memory."""
LEAST = 2
"""N-grams without which there is no standard deviation."""

Found = npt.NDArray[np.int32]
"""(M, 3): an n-gram, its first token and the one after its last."""


def parts(config: RunConfig, tables: Tables, module: str) -> list[dict[str, Any]]:
    """SHARD_UNITS units a shard."""
    units = units_of(config, module, module_widths(tables)[module])
    return [{"first": part[0], "last": part[-1]} for part in chunks(units, SHARD_UNITS)]


def scan(context: Context, ngrams: Ngrams, chosen: Chosen) -> dict[str, pa.Table]:
    """One row for each unit and polarity, from the whole list of n-grams."""
    from pipeline.subjects.activation_sources import describe_modules
    from stages.sasc.occurrences import Places

    config, recorded = context.config, RecordedUnits.of(context)
    places = context.once("places", lambda config: Places.of(ngrams.texts, config))
    modules = context.once("modules", describe_modules)
    known: dict[int, Found] = context.once("occurrences", lambda _: {})
    found = {}
    for module, units in chosen.items():
        polarities = polarities_of(config, module, modules[module].signed)
        windows = {end: recorded.exemplars(module, units, ["explain"], end) for end in polarities}
        seen = {window.seq_id for end in polarities for own in windows[end].values() for window in own}
        _look_through(context.tables, places, seen - known.keys(), known)
        rows = [
            _unit_row(config[Sasc], (module, index, end), windows[end][index], known, ngrams.ids)
            for index in units
            for end in polarities
        ]
        found[module] = pa.concat_tables([NGRAM_PARTIALS.schema.empty_table(), *rows])
    return found


def _look_through(tables: Tables, places: "Places", seq_ids: Iterable[int], known: dict[int, Found]) -> None:
    """Add the occurrences in some sequences to those that are known."""
    columns = ["seq_id", "start", "token_ids", "tokens"]
    rows = tables.read(CORPUS, pc.field("seq_id").isin(sorted(seq_ids)), columns)
    for seq_id, *sequence in zip(*(rows[name].to_pylist() for name in columns), strict=True):
        known[seq_id] = np.asarray(places.find(*sequence), np.int32).reshape(-1, 3)


def _unit_row(
    sasc: Sasc, unit: tuple[str, int, str], windows: list[Exemplar], known: Mapping[int, Found], ids: "Ints"
) -> pa.Table:
    """The row of NGRAM_PARTIALS of a unit in one polarity."""
    from stages.sasc.responses import ModuleResponses

    module, index, polarity = unit
    responses = ModuleResponses.for_run(sasc, module, [index], polarity)
    seen, values = mean_responses(windows, polarity, known, len(ids), sasc.pool)
    if len(seen) < LEAST:
        kept = len({window.seq_id for window in windows})
        return responses.rows(
            f"the {kept} sequences of the split explain that were recorded for the unit hold {len(seen)} n-grams of the list, and "
            f"sigma takes {LEAST}; record more of them (record.top, record.random), or choose another sasc.reading"
        )
    responses.add(ids[seen], values)
    return responses.rows()


def mean_responses(
    windows: Sequence[Exemplar], polarity: str, places: Mapping[int, Found], ngrams: int, pool: "Pool"
) -> "tuple[Ints, torch.Tensor]":
    """The numbers of the n-grams that occur in some windows of a unit, and their (M, 1) mean responses, in the unit's sign.

    Args:
        windows: the K windows, a sequence more than once where it was kept for several reasons; NaN is no activation.
        polarity: the one that their activations are in.
        places: of the n-grams in each sequence.
        ngrams: N.
    """
    import torch

    from stages.sasc.occurrences import Means

    own = {window.seq_id: window.activations if polarity == "+" else -window.activations for window in windows}
    activations = np.full((len(own), max(map(len, own.values()), default=0)), np.nan, np.float32)
    for row, values in enumerate(own.values()):
        activations[row, : len(values)] = values
    found = [places[seq_id] for seq_id in own]
    rows = np.repeat(np.arange(len(own)), list(map(len, found)))
    spans = np.column_stack([rows, np.concatenate([np.zeros((0, 3), np.int64), *found])])
    missing = np.insert(np.isnan(activations).cumsum(axis=1), 0, 0, axis=1)  # (K, T + 1), before each token
    spans = spans[missing[rows, spans[:, 2]] == missing[rows, spans[:, 3]]]
    means = Means(ngrams, [0], pool)
    means.add(torch.from_numpy(activations).unsqueeze(-1), spans)
    return means.responses()


def check(config: RunConfig) -> None:
    """Raises ValueError where the run file does not record what is read."""
    if "simulation" not in config.run.methods:
        raise ValueError(
            'sasc.reading = "recorded" reads the exemplars that the method simulation records; '
            'set run.methods = ["simulation", "sasc"], or choose another sasc.reading'
        )
    missing = [polarity for polarity in config[Sasc].polarities if polarity not in config[Record].polarities]
    if missing:
        raise ValueError(
            f'sasc.polarities names "{missing[0]}", which is not recorded; add it to record.polarities, '
            "or choose another sasc.reading"
        )


METHOD = Reading(
    "by the mean over its occurrences in the unit's own exemplars, as recorded, with no pass, but for fewer n-grams",
    scan,
    parts,
    reads=("record.merge",),
    check=check,
)
