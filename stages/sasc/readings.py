"""Responses of units of the model to n-grams, in three ways: `alone`, `in_context` and `recorded`.

Alone, an n-gram is a text of its own. Otherwise the response is the mean over the occurrences of the n-gram, at each of which the
activations on its tokens are pooled: over those in the corpus, by running the model, or over those in the sequences that `record`
has kept for the unit, without a model. The latter are the unit's exemplars of the split `explain`, of the bands top, quantile and
random, each sequence once. An n-gram without an occurrence there is no n-gram of the unit. Activations are as recorded, rounded to
record.activation_bits; an occurrence on a token without a recorded one is left out. Activations keep their sign, so the n-grams of
'-' are those with the smallest responses.

Sigma is the standard deviation over the n-grams (Singh et al. 2023). As recorded, it is over other n-grams for every unit and
polarity, many of them in sequences that were kept because the unit is strong there. Strong responses weigh more in it than they do
in the corpus, and means over few occurrences spread more. So such scores are to be compared with one another, not with those of
other readings. Null units are black boxes, whose sigma is over the whole list.

Shapes: K windows of a unit, T tokens, M occurrences or n-grams that occur, N n-grams of the list.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.execution.stage import Context, chunks
from pipeline.schemas import CORPUS
from pipeline.storage.tables import Tables
from stages.evidence import Exemplar, RecordedUnits
from stages.sasc import Sasc
from stages.sasc.ngram_pieces import Places
from stages.sasc.ngram_scan import Chosen, Ngrams, Reading
from stages.sasc.sasc_tables import NGRAM_PARTIALS
from stages.sasc.sasc_units import polarities_of, units_of
from stages.settings import Record
from stages.units import module_widths

if TYPE_CHECKING:
    import torch

    from pipeline.subjects.activations import Activations, TokenBatch
    from pipeline.subjects.text_functions import Pool
    from stages.sasc.responses import Means

SUM_BYTES = 1 << 31
"""Memory for sums over occurrences; where it does not suffice, the corpus is gone through more than once."""
BLOCK = 1024
"""N-grams whose mean responses are taken in at a time."""
SHARD_UNITS = 512
"""Units of a shard of recorded ones, whose windows are all in memory."""
LEAST = 2
"""N-grams without which there is no standard deviation."""

Ints = npt.NDArray[np.int64]
Found = npt.NDArray[np.int32]
"""(M, 3): an n-gram, its first token and the one after its last."""


def scan_alone(context: Context, ngrams: Ngrams, chosen: Chosen) -> dict[str, pa.Table]:
    """Ask all modules about some n-grams, in the same forward passes."""
    from pipeline.subjects.text_functions import open_model_texts
    from stages.sasc.responses import ModuleResponses

    sasc = context.config[Sasc]
    found = {module: ModuleResponses.for_run(sasc, module, units) for module, units in chosen.items()}
    texts = context.once("model", lambda config: open_model_texts(config, list(chosen), sasc.pool))
    with tqdm(total=len(ngrams.texts), desc="n-grams", unit="n-gram", leave=False, disable=None) as bar:
        for places, responses in texts.each(ngrams.texts):
            for module, values in responses.items():
                whole = len(chosen[module]) == values.shape[1]
                found[module].add(ngrams.ids[places], values if whole else values[:, chosen[module]])
            bar.update(len(places))
    return {module: responses.rows() for module, responses in found.items()}


def scan_in_context(context: Context, ngrams: Ngrams, chosen: Chosen) -> dict[str, pa.Table]:
    """Go through the corpus for each module."""
    from stages.sasc.responses import Means, ModuleResponses

    config, rows = context.config, {}
    for module, units in chosen.items():
        responses = ModuleResponses.for_run(config[Sasc], module, units)
        for part in chunks(list(range(len(ngrams.ids))), max(1, SUM_BYTES // (8 * len(units)))):
            means = Means(len(part), units, config[Sasc].pool)
            _add_corpus(context, module, Places.of([ngrams.texts[number] for number in part], config), means)
            seen, values = means.responses()
            for first in range(0, len(seen), BLOCK):
                block = slice(first, first + BLOCK)
                responses.add(ngrams.ids[part[0] + seen[block]], values[block])
        rows[module] = responses.rows()
    return rows


def _add_corpus(context: Context, module: str, places: Places, means: "Means") -> None:
    from pipeline.subjects.activation_sources import open_source

    source = context.latest("source", module, lambda config: open_source(config, [module]))
    for batch, spans in _batches(context, places):

        def receive(_: str, activations: "Activations", spans: Ints = spans) -> None:
            means.add(activations, spans)

        source.run(batch, receive)


def _batches(context: Context, places: Places) -> "Iterator[tuple[TokenBatch, Ints]]":
    """The batches of the corpus, on the grid of record.scan, with the occurrences of n-grams in each."""
    from stages.record.sequences import on_grid, padded_batches

    columns = ["seq_id", "start", "token_ids", "tokens"]
    tables, size = context.tables, context.config[Record].batch_size
    pieces = tables.batches(CORPUS, columns=columns)
    rows = chain.from_iterable(
        zip(*(piece.column(name).to_pylist() for name in columns), strict=True) for piece in pieces
    )
    with tqdm(total=tables.count(CORPUS), desc="sequences", unit="sequence", leave=False, disable=None) as bar:
        for part in on_grid(rows, size):
            (batch,) = padded_batches([(seq_id, token_ids) for seq_id, _, token_ids, _ in part], size)
            spans = [(row, *span) for row, (_, *sequence) in enumerate(part) for span in places.find(*sequence)]
            yield batch, np.asarray(spans, np.int64).reshape(-1, 4)
            bar.update(len(part))


def scan_recorded(context: Context, ngrams: Ngrams, chosen: Chosen) -> dict[str, pa.Table]:
    """One row for each unit and polarity, from the whole list of n-grams."""
    from pipeline.subjects.activation_sources import describe_modules

    config, recorded = context.config, RecordedUnits.of(context)
    places = context.once("places", lambda config: Places.of(ngrams.texts, config))
    modules = context.once("modules", describe_modules)
    known: dict[int, Found] = context.once("occurrences", lambda _: {})
    found = {}
    for module, units in chosen.items():
        rows = [NGRAM_PARTIALS.schema.empty_table()]
        for polarity in polarities_of(config, module, modules[module].signed):
            windows = recorded.exemplars(module, units, ["explain"], polarity)
            missing = {window.seq_id for own in windows.values() for window in own} - known.keys()
            columns = ["seq_id", "start", "token_ids", "tokens"]
            corpus = context.tables.numbered(CORPUS, missing, columns)
            for seq_id, *sequence in zip(*(corpus[name].to_pylist() for name in columns), strict=True):
                known[seq_id] = np.asarray(places.find(*sequence), np.int32).reshape(-1, 3)
            rows += [
                _unit_row(config[Sasc], (module, index, polarity), windows[index], known, ngrams.ids) for index in units
            ]
        found[module] = pa.concat_tables(rows).sort_by("index")
    return found


def _unit_row(
    sasc: Sasc, unit: tuple[str, int, str], windows: list[Exemplar], known: Mapping[int, Found], ids: Ints
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

    from stages.sasc.responses import Means

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


def _recorded_parts(config: RunConfig, tables: Tables, module: str) -> list[dict[str, Any]]:
    units = units_of(config, module, module_widths(tables)[module])
    return [{"first": part[0], "last": part[-1]} for part in chunks(units, SHARD_UNITS)]


def _check_recorded(config: RunConfig) -> None:
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


def _ngrams_at_most(config: RunConfig, modules: int) -> dict[str, str]:  # noqa: ARG001 - the contract of a reading
    return {"n-grams evaluated by the subject": f"{config[Sasc].max_ngrams:,} at most"}


def _passes(config: RunConfig, modules: int) -> dict[str, str]:
    """One over the corpus for each module, up to its layer."""
    batches = -(-config.corpus.max_sequences // config[Record].batch_size)
    return {"forward passes for n-grams in context": f"{batches * modules:,}"}


ALONE = Reading("as to a text of its own", scan_alone, sizes=_ngrams_at_most)
IN_CONTEXT = Reading(
    "by the mean over its occurrences in the corpus, one pass over which serves all n-grams and units of a module",
    scan_in_context,
    parts=lambda *_: [{}],
    record=frozenset({"batch_size", "skip_positions"}),
    sizes=_passes,
)
RECORDED = Reading(
    "by the mean over its occurrences in the unit's own exemplars, as recorded, with no pass, but for fewer n-grams",
    scan_recorded,
    _recorded_parts,
    reads=("record.merge",),
    check=_check_recorded,
)
