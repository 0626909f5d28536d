"""The source of the activations that a run file asks for: the model, functions of texts and folders as one.

Shapes: B sequences of a batch, T tokens of a sequence, U units asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.storage.tables import Tables
from pipeline.subjects.activations import ActivationSource, ModuleUnits, Receive, SparseActivations, TokenBatch
from pipeline.subjects.hook_points import ModelActivations
from pipeline.subjects.identity import BLACK_BOX, PRECOMPUTED, black_box, needs_model, precomputed_folder
from pipeline.subjects.kinds.black_box import BlackBoxActivations
from pipeline.subjects.kinds.precomputed_activations import PrecomputedActivations, corpus_places
from pipeline.subjects.kinds.precomputed_files import activation_files, units_of_files
from pipeline.subjects.loading.model_loading import load_subject, load_tokenizer
from pipeline.subjects.model_facts import check_modules
from pipeline.subjects.sites import find_hook_points
from pipeline.subjects.token_text import TokenTexts

Floats = npt.NDArray[np.float32]


class CombinedActivations:
    """Several sources as one: each runs on every batch."""

    def __init__(self, sources: Sequence[ActivationSource], modules: Sequence[str]) -> None:
        """modules: the order in which they are named; the sources have them all, each once."""
        self.sources = list(sources)
        units = {name: units for source in sources for name, units in source.modules.items()}
        self.modules: Mapping[str, ModuleUnits] = {name: units[name] for name in modules}

    def run(self, batch: TokenBatch, receive: Receive) -> None:
        for source in self.sources:
            source.run(batch, receive)


def open_source(config: RunConfig, modules: Sequence[str]) -> ActivationSource:
    """What runs over batches of tokens and gives the activations of some modules.

    The model is loaded only where one of them is part of it. Folders of activations need the finished corpus.

    Raises:
        UserError: the subject, or something that belongs to it, is not there.
    """
    _refuse_twice(modules)
    subject = config.subject
    parts = [name for name in modules if needs_model([name])]
    precomputed = {name: precomputed_folder(config, name) for name in modules if name.startswith(PRECOMPUTED)}
    sources: list[ActivationSource] = []
    if parts:
        base_model = load_subject(subject).model.base_model
        sources.append(ModelActivations(base_model, find_hook_points(base_model, parts, subject)))
    sources += [open_black_box(config, name) for name in modules if name.startswith(BLACK_BOX)]
    if precomputed:
        sources.append(PrecomputedActivations(precomputed, lambda: corpus_places(Tables(config.root))))
    return sources[0] if len(sources) == 1 else CombinedActivations(sources, modules)


def open_black_box(config: RunConfig, module: str) -> BlackBoxActivations:
    """The function of `black_box:NAME`, with the subject's tokenizer to make texts of tokens.

    Raises:
        UserError: the function cannot be used, or the tokenizer is not there.
    """
    tokenizer = load_tokenizer(config.subject.model, config.subject.trust_remote_code)
    return BlackBoxActivations(module, black_box(config, module), TokenTexts(tokenizer).whole)


def describe_modules(config: RunConfig) -> dict[str, ModuleUnits]:
    """The units of each module that a run file names, in its order; no weights are read and no function is called.

    Raises:
        UserError: there is no such module, or it is named twice.
    """
    subject = config.subject
    _refuse_twice(subject.modules)
    parts = [name for name in subject.modules if needs_model([name])]
    found = check_modules(subject.model, parts, subject.trust_remote_code, subject) if parts else {}
    for name in subject.modules:
        if name.startswith(PRECOMPUTED):
            found[name] = units_of_files(activation_files(precomputed_folder(config, name)))
        elif name.startswith(BLACK_BOX):
            found[name] = ModuleUnits(black_box(config, name).units)
    return {name: found[name] for name in subject.modules}


def check_sources(config: RunConfig) -> None:
    """Raises UserError where a module's function or files cannot be used, or the corpus is not that of the files."""
    describe_modules(config)
    for name in config.subject.modules:
        if name.startswith(BLACK_BOX):
            open_black_box(config, name)
        if name.startswith(PRECOMPUTED) and not config.corpus.source.startswith(PRECOMPUTED):
            raise UserError(
                f"corpus.source = {config.corpus.source!r}, but activations from files are there for their own sequences only; "
                f'write corpus.source = "{name}"'
            )


def _refuse_twice(modules: Sequence[str]) -> None:
    twice = sorted({name for name in modules if list(modules).count(name) > 1})
    if twice:
        raise UserError(f"subject.modules names {', '.join(twice)} more than once; name each module once")


def activations_on(
    source: ActivationSource,
    module: str,
    units: Sequence[int],
    sequences: Iterable[tuple[int, Sequence[int]]],
    batch_size: int,
) -> Mapping[int, Floats]:
    """What some units of a module do on some sequences.

    Every batch has `batch_size` rows of one length, the first repeated where sequences are missing: so the activations on
    a sequence are the same to the last bit whatever other sequences are asked for.

    Args:
        units: distinct indices, in any order.
        sequences: seq_id and token ids of each, at least one token.

    Returns:
        (T, U) float32 activations by seq_id, in the order of `units`, at every token, those that the record leaves out too.

    Raises:
        ValueError: the source has no such module, or `units` names one that it has not, or one twice.
    """
    width = source.modules[module].width if module in source.modules else 0
    if len(set(units)) < len(units) or not all(0 <= unit < width for unit in units):
        raise ValueError(f"units {list(units)} of {module!r}, which has {width}; they must be distinct")
    wanted = np.asarray(units, dtype=np.int64)
    found: dict[int, Floats] = {}
    for part in _of_one_length(sequences, batch_size):
        rows = [*part, *[part[0]] * (batch_size - len(part))]
        token_ids = np.asarray([ids for _, ids in rows], dtype=np.int64)
        lengths = np.full(batch_size, token_ids.shape[1], dtype=np.int64)
        seq_ids = np.asarray([seq_id for seq_id, _ in rows], dtype=np.int64)
        taken = _run(source, module, wanted, TokenBatch(token_ids, lengths, seq_ids))
        found.update((seq_id, taken[row].copy()) for row, (seq_id, _) in enumerate(part))
    return found


def _of_one_length(
    sequences: Iterable[tuple[int, Sequence[int]]], size: int
) -> Iterable[list[tuple[int, Sequence[int]]]]:
    """Parts of at most `size` sequences of the same length."""
    lengths: dict[int, list[tuple[int, Sequence[int]]]] = {}
    for seq_id, ids in sequences:
        lengths.setdefault(len(ids), []).append((seq_id, ids))
    for _, members in sorted(lengths.items()):
        rest = iter(members)
        while part := list(islice(rest, size)):
            yield part


def _run(source: ActivationSource, module: str, units: npt.NDArray[np.int64], batch: TokenBatch) -> Floats:
    """(B, T, U)"""
    taken: list[Floats] = []

    def receive(name: str, activations: Any) -> None:
        if name == module:
            sparse = isinstance(activations, SparseActivations)
            taken.append(_from_sparse(activations, units) if sparse else _from_dense(activations, units))

    source.run(batch, receive)
    (values,) = taken
    return values


def _from_dense(activations: "torch.Tensor", units: npt.NDArray[np.int64]) -> Floats:
    chosen = activations[..., torch.as_tensor(units, device=activations.device)]
    values: Floats = chosen.float().cpu().numpy()
    return values


def _from_sparse(activations: SparseActivations, units: npt.NDArray[np.int64]) -> Floats:
    batch, tokens, width = activations.shape
    column = np.full(width, -1, dtype=np.int64)
    column[units] = np.arange(len(units))
    places = column[activations.units.cpu().numpy()]  # (N,)
    kept = places >= 0
    values = np.zeros((batch * tokens, len(units)), dtype=np.float32)
    values[activations.positions.cpu().numpy()[kept], places[kept]] = activations.values.float().cpu().numpy()[kept]
    return values.reshape(batch, tokens, len(units))
