"""The record.scan stage: from a range of the corpus to partial evidence for all units of all modules.

Batches lie on a fixed grid of seq_ids, batch b being the sequences from b * batch_size on, and shards are made of whole
batches. So the activations are the same, to the last bit, however the corpus is split.

Sequences are not sorted by length. A sequence that is padded to another length has other last bits, because matrix products add
up in another order; and batches of equal length would differ from shard to shard. There is little to gain: only windows at the end
of a document are shorter, 1 % of those of the demo, and 0.5 % of what a pass computes is padding.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.execution.stage import Context, Shard, Stage
from pipeline.schemas import CORPUS
from pipeline.storage.tables import Tables
from pipeline.subjects.activations import ActivationSource
from pipeline.subjects.loading.model_source import model_identity
from pipeline.subjects.module_kinds import modules_of, needs_model, source_identities
from stages.record.partial_tables import PARTIALS
from stages.record.recorder import Recorder
from stages.record.sequences import (
    Sequences,
    padded_batches,
    sequence_shards,
    sequences_between,
    special_ids,
)
from stages.record.token_table import TokenTable, count_tokens, cover_tokens
from stages.settings import Record

LATER = {
    *("quantiles", "activation_bits", "weight_tokens", "negatives", "attribution", "details", "pairs"),
    *("shard_sequences", "shard_units"),
}
"""Settings that do not change what is scanned."""


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the partials."""
    return {
        **(model_identity(config.subject) if needs_model(modules_of(config)) else {}),
        "modules": modules_of(config),
        "sources": source_identities(config),
        "record": config[Record].model_dump(exclude=LATER),
    }


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of shard_sequences sequences."""
    return sequence_shards(tables.count(CORPUS), config[Record].shard_sequences)


def process(shard: Shard, context: Context) -> Mapping[str, Iterator[pa.Table]]:
    """Scan one range of the corpus."""
    from pipeline.subjects.activation_sources import open_source

    config, record = context.config, context.config[Record]
    source = context.once("source", lambda config: open_source(config, modules_of(config)))
    special = context.once("special_ids", special_ids)
    width = sum(units.width for units in source.modules.values())
    tokens = context.once("token_table", lambda _: token_table(context.tables, width, config, special))
    recorder = Recorder(source.modules, record, tokens, config.corpus.seq_len, special)
    start, stop = shard.key["start"], shard.key["stop"]
    scan(source, recorder, sequences_between(context.tables, start, stop), record.batch_size, stop - start)
    return recorder.tables()


def token_table(tables: Tables, units: int, config: RunConfig, special: Collection[int] = ()) -> TokenTable:
    """The tokens whose mean activation is recorded, from a count over the whole corpus."""
    batches = tables.batches(CORPUS, columns=["seq_id", "token_ids"])
    return cover_tokens(*count_tokens(batches, config[Record], special), units, config[Record])


def scan(
    source: ActivationSource, recorder: Recorder, sequences: Sequences, batch_size: int, total: int | None = None
) -> None:
    """Run over some sequences, a batch at a time, and record what the units do.

    Args:
        sequences: by rising seq_id, from a multiple of batch_size on.
        total: how many there are, for the progress bar.
    """
    with tqdm(total=total, desc="sequences", unit="sequence", leave=False, disable=None) as bar:
        for batch in padded_batches(sequences, batch_size):
            recorder.begin(batch.token_ids, batch.lengths, batch.seq_ids)
            source.run(batch, recorder.add)
            bar.update(len(batch.seq_ids))


def check(config: RunConfig) -> None:
    """Raises UserError if the subject or its device is missing, or a module does not exist or fails."""
    from pipeline.subjects.activation_sources import check_sources
    from pipeline.subjects.loading.model_loading import resolve_device

    if needs_model(modules_of(config)):
        resolve_device(config.subject.device)
    check_sources(config)


SCAN = Stage(
    name="record.scan",
    title="record activations",
    reads=("corpus",),
    writes=PARTIALS,
    settings=settings,
    plan=plan,
    process=process,
    check=check,
    method="simulation",
    version=4,
)
