"""Ask modules about n-grams: black boxes each for itself, units of the model all in one pass or from what is recorded."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.context import Context
from pipeline.schemas import CORPUS
from pipeline.subjects.activations import TokenBatch
from pipeline.subjects.text_functions import TextFunction, open_text_function
from stages.record.scan import padded_batches
from stages.sasc.nulls import with_nulls
from stages.sasc.reading_in_context import Means, Places, Spans, scan_in_context
from stages.sasc.reading_recorded import scan_recorded
from stages.sasc.responses import ModuleResponses, failed_rows
from stages.settings import Record, Sasc

BLOCK_BYTES = 1 << 26
"""Memory for answers of a black box at a time."""
SUM_BYTES = 1 << 31
"""Memory for sums over occurrences; where it does not suffice, the corpus is gone through more than once."""
BLOCK = 1024
"""N-grams whose mean responses are taken in at a time."""

Chosen = dict[str, list[int]]


@dataclass(frozen=True)
class Ngrams:
    """Some n-grams of the list."""

    ids: npt.NDArray[np.int64]
    texts: list[str]


def scan_black_box(context: Context, ngrams: Ngrams, module: str, units: list[int]) -> pa.Table:
    """Rows of NGRAM_PARTIALS of a black box; where it fails, each says why, and it is not asked again by this process."""
    failures: dict[str, str] = context.once("failures", lambda _: {})
    if module in failures:
        return failed_rows(module, units, failures[module])
    try:
        function = context.once(
            module, lambda config: open_text_function(with_nulls(config), module, config[Sasc].pool)
        )
        return ask(function, ngrams, _empty(context.config, module, units))
    except UserError as error:
        failures[module] = str(error)
        return failed_rows(module, units, failures[module])


def ask(function: TextFunction, ngrams: Ngrams, responses: ModuleResponses) -> pa.Table:
    """The rows of a module that is asked about n-grams, shorter ones first, in as many calls as memory allows.

    Raises:
        UserError: the module fails.
    """
    order = np.asarray(sorted(range(len(ngrams.texts)), key=lambda number: len(ngrams.texts[number])), np.int64)
    size = max(BLOCK, BLOCK_BYTES // (8 * function.units))
    for start in range(0, len(order), size):
        part = order[start : start + size]
        values = function.values([ngrams.texts[number] for number in part.tolist()])
        responses.add(ngrams.ids[part], torch.from_numpy(values[:, responses.indices]))
    return responses.rows()


def scan_model(context: Context, ngrams: Ngrams, chosen: Chosen) -> dict[str, pa.Table]:
    """Rows of NGRAM_PARTIALS of units of the model, by module."""
    if not chosen:
        return {}
    reading = context.config[Sasc].reading
    if reading == "recorded":
        return scan_recorded(context, ngrams.ids, ngrams.texts, chosen)
    found = {module: _empty(context.config, module, units) for module, units in chosen.items()}
    if reading == "in_context":
        _read_in_context(context, ngrams, chosen, found)
    else:
        _ask_model(context, ngrams, chosen, found)
    return {module: responses.rows() for module, responses in found.items()}


def _ask_model(context: Context, ngrams: Ngrams, chosen: Chosen, found: dict[str, ModuleResponses]) -> None:
    from pipeline.subjects.text_functions import open_model_texts

    texts = context.once("model", lambda config: open_model_texts(config, list(chosen), config[Sasc].pool))
    with tqdm(total=len(ngrams.texts), desc="n-grams", unit="n-gram", leave=False, disable=None) as bar:
        for places, responses in texts.each(ngrams.texts):
            for module, values in responses.items():
                whole = len(chosen[module]) == values.shape[1]
                found[module].add(ngrams.ids[places], values if whole else values[:, chosen[module]])
            bar.update(len(places))


def _read_in_context(context: Context, ngrams: Ngrams, chosen: Chosen, found: dict[str, ModuleResponses]) -> None:
    from pipeline.subjects.activation_sources import open_source
    from pipeline.subjects.loading.model_loading import load_tokenizer
    from pipeline.subjects.token_text import TokenTexts

    config = context.config
    source = context.latest("source", " ".join(chosen), lambda config: open_source(config, list(chosen)))
    token_texts = TokenTexts(load_tokenizer(config.subject.model, config.subject.trust_remote_code))
    size = max(1, SUM_BYTES // (8 * sum(map(len, chosen.values()))))
    for start in range(0, len(ngrams.ids), size):
        ids, texts = ngrams.ids[start : start + size], ngrams.texts[start : start + size]
        means = Means(np.zeros(len(ids), np.int64))
        scan_in_context(source, _batches(context, Places(texts, config, token_texts)), means, chosen, config[Sasc].pool)
        for module, responses in found.items():
            seen, values = means.responses(module)
            for first in range(0, len(seen), BLOCK):
                responses.add(ids[seen[first : first + BLOCK]], values[first : first + BLOCK])


def _batches(context: Context, places: Places) -> Iterator[tuple[TokenBatch, Spans]]:
    """The batches of the corpus, on the grid of record.scan, with the n-grams in each."""
    columns = ["seq_id", "start", "token_ids", "tokens"]
    tables, size = context.tables, context.config[Record].batch_size
    pieces = tables.batches(CORPUS, columns=columns)
    rows = chain.from_iterable(
        zip(*(piece.column(name).to_pylist() for name in columns), strict=True) for piece in pieces
    )
    with tqdm(total=tables.count(CORPUS), desc="sequences", unit="sequence", leave=False, disable=None) as bar:
        while part := list(islice(rows, size)):
            seq_ids, starts, token_ids, tokens = zip(*part, strict=True)
            (batch,) = padded_batches(list(zip(seq_ids, token_ids, strict=True)), size)
            spans = [
                (row, *span)
                for row, sequence in enumerate(zip(starts, token_ids, tokens, strict=True))
                for span in places.find(*sequence)
            ]
            yield batch, np.asarray(spans, np.int64).reshape(-1, 4)
            bar.update(len(seq_ids))


def _empty(config: RunConfig, module: str, units: list[int]) -> ModuleResponses:
    """Nothing yet; of an end that is not explained only the extreme is kept."""
    largest, smallest = (config[Sasc].kept if polarity in config[Sasc].polarities else 1 for polarity in "+-")
    return ModuleResponses(module, units, largest, smallest)
