"""Responses of units to n-grams by running the model: on each n-gram as a text of its own, or on the sequences that hold it.

In context, a response is the mean over the occurrences of the n-gram, at each of which the activations on its tokens are pooled.
"""

from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.execution.stage import Context
from pipeline.schemas import CORPUS
from stages.sasc import Sasc
from stages.sasc.sasc_contracts import Chosen, Ngrams, Reading
from stages.settings import Record

if TYPE_CHECKING:
    from pipeline.subjects.activations import Activations, TokenBatch
    from stages.sasc.occurrences import Ints, Means, Places

SUM_BYTES = 1 << 31
"""Memory for sums over occurrences; where it does not suffice, the corpus is gone through more than once."""
BLOCK = 1024
"""N-grams whose mean responses are taken in at a time."""


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
    from stages.sasc.occurrences import Means, Places
    from stages.sasc.responses import ModuleResponses

    config, rows = context.config, {}
    for module, units in chosen.items():
        responses = ModuleResponses.for_run(config[Sasc], module, units)
        size = max(1, SUM_BYTES // (8 * len(units)))
        for start in range(0, len(ngrams.ids), size):
            ids, texts = ngrams.ids[start : start + size], ngrams.texts[start : start + size]
            means = Means(len(ids), units, config[Sasc].pool)
            _add_corpus(context, module, Places.of(texts, config), means)
            seen, values = means.responses()
            for first in range(0, len(seen), BLOCK):
                responses.add(ids[seen[first : first + BLOCK]], values[first : first + BLOCK])
        rows[module] = responses.rows()
    return rows


def _add_corpus(context: Context, module: str, places: "Places", means: "Means") -> None:
    from pipeline.subjects.activation_sources import open_source

    source = context.latest("source", module, lambda config: open_source(config, [module]))
    for batch, spans in _batches(context, places):

        def receive(_: str, activations: "Activations", spans: "Ints" = spans) -> None:
            means.add(activations, spans)

        source.run(batch, receive)


def _batches(context: Context, places: "Places") -> "Iterator[tuple[TokenBatch, Ints]]":
    """The batches of the corpus, on the grid of record.scan, with the occurrences of n-grams in each."""
    from stages.record.sequences import padded_batches

    columns = ["seq_id", "start", "token_ids", "tokens"]
    tables, size = context.tables, context.config[Record].batch_size
    pieces = tables.batches(CORPUS, columns=columns)
    rows = chain.from_iterable(
        zip(*(piece.column(name).to_pylist() for name in columns), strict=True) for piece in pieces
    )
    with tqdm(total=tables.count(CORPUS), desc="sequences", unit="sequence", leave=False, disable=None) as bar:
        while part := list(islice(rows, size)):
            (batch,) = padded_batches([(seq_id, token_ids) for seq_id, _, token_ids, _ in part], size)
            spans = [(row, *span) for row, (_, *sequence) in enumerate(part) for span in places.find(*sequence)]
            yield batch, np.asarray(spans, np.int64).reshape(-1, 4)
            bar.update(len(part))


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
