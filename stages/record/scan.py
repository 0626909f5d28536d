"""The record.scan stage: a range of the corpus to partial evidence for all units of all modules.

Batches lie on a fixed grid of seq_ids, batch b being the sequences from b * batch_size on, and shards are made of whole
batches. So the activations are the same, to the last bit, however the corpus is split.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds
from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.context import Context
from pipeline.schemas import CORPUS
from pipeline.stage import Shard, Stage
from pipeline.subjects.spec import resolve_model
from pipeline.tables import Tables
from stages.record.partials import PARTIAL_EXEMPLARS, PARTIAL_TOKENS, PARTIAL_UNITS
from stages.record.recorder import Recorder
from stages.record.tokens import TokenTable, count_tokens, cover_tokens

MERGE_ONLY = {"quantiles", "shard_sequences", "shard_units"}
"""Settings that do not change what is scanned."""

Sequences = Sequence[tuple[int, Sequence[int]]]
"""seq_id and token ids of some sequences."""


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the partials."""
    subject = config.subject
    return {
        "model": subject.model,
        "revision": resolve_model(subject.model).revision,
        "dtype": subject.dtype,
        "modules": subject.modules,
        "record": config.record.model_dump(exclude=MERGE_ONLY),
    }


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of shard_sequences sequences."""
    total, size = tables.count(CORPUS), config.record.shard_sequences
    starts = range(0, total, size)
    return [
        Shard(f"part-{number:05d}", {"start": start, "stop": min(start + size, total)})
        for number, start in enumerate(starts)
    ]


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Scan one range of the corpus."""
    from pipeline.subjects.load import load_language_model
    from pipeline.subjects.sites import find_sites

    subject, record = context.config.subject, context.config.record
    loaded = load_language_model(subject.model, subject.dtype, subject.device, subject.trust_remote_code)
    sites = find_sites(loaded.model.base_model, subject.modules)
    widths = {name: site.width for name, site in sites.items()}
    tokens = context.once("token_table", lambda _: token_table(context.tables, sum(widths.values()), context.config))
    recorder = Recorder(widths, record, tokens, context.config.corpus.seq_len)
    where = (ds.field("seq_id") >= shard.key["start"]) & (ds.field("seq_id") < shard.key["stop"])
    rows = context.tables.read(CORPUS, where, ["seq_id", "token_ids"]).sort_by("seq_id")
    sequences = list(zip(rows["seq_id"].to_pylist(), rows["token_ids"].to_pylist(), strict=True))
    modules = {name: site.projection for name, site in sites.items()}
    scan(loaded.model.base_model, modules, recorder, sequences, record.batch_size)
    return recorder.tables()


def token_table(tables: Tables, units: int, config: RunConfig) -> TokenTable:
    """The tokens whose mean activation is recorded, from a count over the whole corpus."""
    batches = tables.read(CORPUS, columns=["seq_id", "token_ids"]).to_batches()
    return cover_tokens(*count_tokens(batches, config.record), units, config.record)


def scan(
    base_model: Any, modules: Mapping[str, Any], recorder: Recorder, sequences: Sequences, batch_size: int
) -> None:
    """Run the model over some sequences and record the inputs of modules.

    Args:
        base_model: a transformers model without its head.
        modules: by name, the torch modules whose first input (B, T, U) is recorded.
        sequences: by rising seq_id, from a multiple of batch_size on.
    """
    import torch

    device = next(base_model.parameters()).device
    bar = tqdm(total=len(sequences), desc="sequences", unit="sequence", leave=False, disable=None)
    with torch.inference_mode(), hooked(modules, recorder.add), bar:
        for token_ids, lengths, seq_ids in padded_batches(sequences, batch_size):
            recorder.begin(token_ids, lengths, seq_ids)
            inputs = {"input_ids": torch.from_numpy(token_ids).to(device)}
            if lengths.min() < token_ids.shape[1]:
                mask = np.arange(token_ids.shape[1]) < lengths[:, None]
                inputs["attention_mask"] = torch.from_numpy(mask.astype(np.int64)).to(device)
            run_to_last_site(base_model, inputs)
            bar.update(len(seq_ids))


class LastSiteReached(Exception):
    """Ends a forward pass: what comes after the last recorded module would be computed for nothing."""


def run_to_last_site(base_model: Any, inputs: Mapping[str, Any]) -> None:
    """A forward pass that ends where the last hooked module has been recorded."""
    with suppress(LastSiteReached):
        base_model(**inputs, use_cache=False)


@contextmanager
def hooked(modules: Mapping[str, Any], receive: Callable[[str, Any], None]) -> Iterator[None]:
    """Call `receive` with a module's name and its first input whenever it is about to run.

    The forward pass is left with LastSiteReached when every module has been received once.
    """
    waiting = set(modules)

    def hook(name: str, activations: Any) -> None:
        receive(name, activations)
        waiting.discard(name)
        if not waiting:
            waiting.update(modules)
            raise LastSiteReached

    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_pre_hook(lambda _, inputs, name=name: hook(name, inputs[0])))
        yield


def padded_batches(
    sequences: Sequences, batch_size: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Token ids (B, T) padded on the right with 0, lengths (B,) and seq_ids (B,) of one batch after another."""
    for start in range(0, len(sequences), batch_size):
        batch = sequences[start : start + batch_size]
        lengths = np.asarray([len(ids) for _, ids in batch], dtype=np.int64)
        token_ids = np.zeros((len(batch), int(lengths.max())), np.int64)
        for row, (_, ids) in enumerate(batch):
            token_ids[row, : len(ids)] = ids
        yield token_ids, lengths, np.asarray([seq_id for seq_id, _ in batch], dtype=np.int64)


def check(config: RunConfig) -> None:
    """Raises UserError where the subject or its device is not there, or it does not have one of the modules."""
    from pipeline.subjects.facts import check_modules
    from pipeline.subjects.load import resolve_device

    resolve_device(config.subject.device)
    check_modules(config.subject.model, config.subject.modules, config.subject.trust_remote_code)


SCAN = Stage(
    name="record.scan",
    title="record activations",
    reads=("corpus",),
    writes=(PARTIAL_UNITS, PARTIAL_TOKENS, PARTIAL_EXEMPLARS),
    settings=settings,
    plan=plan,
    process=process,
    check=check,
)
