"""Responses to n-grams from the sequences that `record` has kept for a unit: no pass over any text, and no model.

An occurrence is read as in `in_context`: the activations on its tokens are pooled, and the response is the mean over the
occurrences. They are those in the unit's exemplars of the split `explain`, of the bands top, quantile and random, each sequence
once; an n-gram that has none is no n-gram of the unit. The activations are as recorded, rounded to record.activation_bits, and
an occurrence on a token without a recorded one is left out. As the unit's own sign is kept, the n-grams of '-' are those with
the smallest responses.

Sigma is the standard deviation over the n-grams (Singh et al. 2023), but here of other n-grams for every unit and polarity: those of
sequences many of which were kept because the unit is strong there. Strong responses weigh more in it than they do in the corpus, and
means over few occurrences spread more. So scores are to be compared with one another, not with those of the other readings. Null
units are black boxes, whose sigma is over the whole list.

Shapes: K windows of a unit, T tokens, M occurrences or n-grams that occur, N n-grams of the list.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds
import torch
from tqdm import tqdm

from pipeline.execution.context import Context
from pipeline.execution.stage import chunks
from pipeline.schemas import CORPUS
from pipeline.storage.tables import Tables
from pipeline.subjects.activation_sources import describe_modules
from pipeline.subjects.loading.model_loading import load_tokenizer
from pipeline.subjects.text_functions import Pool
from pipeline.subjects.token_text import TokenTexts
from stages.evidence import Exemplar
from stages.recorded_units import RecordedUnits
from stages.sasc.polarities import polarities_of
from stages.sasc.reading_in_context import Ints, Means, Places
from stages.sasc.responses import ModuleResponses, failed_rows
from stages.sasc.sasc_tables import NGRAM_PARTIALS
from stages.settings import Sasc

UNITS_AT_ONCE = 64
"""Units whose windows are in memory at a time."""
LEAST = 2
"""N-grams without which there is no standard deviation."""

Found = npt.NDArray[np.int32]
"""(M, 3): an n-gram, its first token and the one after its last."""


class Occurrences:
    """Where the n-grams of a list stand in sequences of the corpus, each of which is looked through once."""

    def __init__(self, tables: Tables, places: Places) -> None:
        self._tables, self._places = tables, places
        self._found: dict[int, Found] = {}

    def of(self, seq_ids: Iterable[int]) -> Mapping[int, Found]:
        """What is known after these sequences were looked through."""
        missing = sorted(set(seq_ids) - self._found.keys())
        if missing:
            columns = ["seq_id", "start", "token_ids", "tokens"]
            rows = self._tables.read(CORPUS, ds.field("seq_id").isin(missing), columns)
            for seq_id, *sequence in zip(*(rows[name].to_pylist() for name in columns), strict=True):
                self._found[seq_id] = np.asarray(self._places.find(*sequence), np.int32).reshape(-1, 3)
        return self._found


def scan_recorded(
    context: Context, ids: Ints, texts: Sequence[str], chosen: Mapping[str, Sequence[int]]
) -> dict[str, pa.Table]:
    """Rows of NGRAM_PARTIALS of units of the model, by module: one for each unit and polarity.

    Args:
        ids: (N,) numbers of the n-grams, in every shard the whole list.
        texts: the N n-grams.
        chosen: indices of the units of each module.
    """
    config = context.config
    occurrences = context.once("occurrences", lambda _: _occurrences(context, texts))
    modules = context.once("modules", describe_modules)
    found = {}
    with tqdm(total=sum(map(len, chosen.values())), desc="units", unit="unit", leave=False, disable=None) as bar:
        for module, units in chosen.items():
            polarities = polarities_of(config, module, modules[module].signed)
            rows = [NGRAM_PARTIALS.schema.empty_table()]
            for some in chunks(list(units), UNITS_AT_ONCE):
                windows = {
                    end: RecordedUnits.of(context).exemplars(module, some, ["explain"], end) for end in polarities
                }
                seen = (window.seq_id for end in polarities for own in windows[end].values() for window in own)
                places = occurrences.of(seen)
                rows += [
                    _unit_rows(context, (module, index, end), windows[end][index], places, ids)
                    for index in some
                    for end in polarities
                ]
                bar.update(len(some))
            found[module] = pa.concat_tables(rows)
    return found


def _occurrences(context: Context, texts: Sequence[str]) -> Occurrences:
    subject = context.config.subject
    token_texts = TokenTexts(load_tokenizer(subject.model, subject.trust_remote_code))
    return Occurrences(context.tables, Places(texts, context.config, token_texts))


def mean_responses(
    windows: Sequence[Exemplar], polarity: str, places: Mapping[int, Found], ngrams: int, pool: Pool
) -> tuple[Ints, torch.Tensor]:
    """The numbers of the n-grams that occur in some windows of a unit, and their (M, 1) mean responses, in the unit's sign.

    Args:
        windows: the K windows, a sequence more than once where it was kept for several reasons; NaN is no activation.
        polarity: the one that their activations are in.
        places: of the n-grams in each sequence.
        ngrams: N.
    """
    own = {window.seq_id: window.activations if polarity == "+" else -window.activations for window in windows}
    activations = np.full((len(own), max(map(len, own.values()), default=0)), np.nan, np.float32)
    for row, values in enumerate(own.values()):
        activations[row, : len(values)] = values
    found = [places[seq_id] for seq_id in own]
    rows = np.repeat(np.arange(len(own)), list(map(len, found)))
    spans = np.column_stack([rows, np.concatenate([np.zeros((0, 3), np.int64), *found])])
    missing = np.insert(np.isnan(activations).cumsum(axis=1), 0, 0, axis=1)  # (K, T + 1), before each token
    spans = spans[missing[rows, spans[:, 2]] == missing[rows, spans[:, 3]]]
    means = Means(np.bincount(spans[:, 1], minlength=ngrams))
    means.add("", torch.from_numpy(activations).unsqueeze(-1), spans, [0], pool)
    return means.responses("")


def _unit_rows(
    context: Context, unit: tuple[str, int, str], windows: list[Exemplar], places: Mapping[int, Found], ids: Ints
) -> pa.Table:
    """The row of NGRAM_PARTIALS of a unit in one polarity."""
    sasc, (module, index, polarity) = context.config[Sasc], unit
    seen, values = mean_responses(windows, polarity, places, len(ids), sasc.pool)
    if len(seen) < LEAST:
        kept = len({window.seq_id for window in windows})
        error = (
            f"the {kept} sequences of the split explain that were recorded for the unit hold {len(seen)} n-grams of the list, and "
            f"sigma takes {LEAST}; record more of them (record.top, record.random), or choose another sasc.reading"
        )
        return failed_rows(module, [index], error, polarity)
    largest, smallest = (sasc.kept if end == polarity else 1 for end in "+-")
    responses = ModuleResponses(module, [index], largest, smallest, polarity)
    responses.add(ids[seen], values)
    return responses.rows()
