"""The source of the activations that a run file asks for: the model, functions of texts and folders as one.

Shapes: B sequences of a batch, T tokens of a sequence, U units asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from itertools import groupby, islice
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.subjects.activations import ActivationSource, ModuleUnits, Receive, SparseActivations, TokenBatch
from pipeline.subjects.hook_points import ModelActivations, find_hook_points
from pipeline.subjects.loading.model_loading import load_subject
from pipeline.subjects.model_facts import check_modules
from pipeline.subjects.module_kinds import PRECOMPUTED, Kind, kind_of, modules_of, needs_model, refuse_twice

Floats = npt.NDArray[np.float32]


class OtherKind(Protocol):
    """What the file of a kind of module outside of the layers offers.

    Of a kind that can be asked about any text it also offers what `text_functions.TextKind` says.
    """

    def units_of(self, config: RunConfig, module: str) -> ModuleUnits:
        """The units of a module, without calling or loading anything that is costly.

        Raises:
            UserError: the run file does not describe it, or its files cannot be used.
        """
        ...

    def open_sources(self, config: RunConfig, modules: Sequence[str]) -> Iterable[ActivationSource]:
        """Sources that give the activations of the modules, each module in one of them.

        Raises:
            UserError: a module cannot be used.
        """
        ...

    def check(self, config: RunConfig, module: str) -> None:
        """Raises UserError where the module could not be recorded."""
        ...


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

    The model is loaded only where one of them is part of it. Precomputed activations need the finished corpus.

    Raises:
        UserError: the subject, or something that belongs to it, is not there.
    """
    refuse_twice(modules)
    sources: list[ActivationSource] = []
    within = [name for name in modules if needs_model([name])]
    if within:
        base_model = load_subject(config.subject).model.base_model
        sources.append(ModelActivations(base_model, find_hook_points(base_model, within, config.subject)))
    others = sorted(set(modules) - set(within), key=lambda name: (kind_of(name).name, modules.index(name)))
    for _, group in groupby(others, key=lambda name: kind_of(name).name):
        names = list(group)
        sources += file_of(kind_of(names[0])).open_sources(config, names)
    return sources[0] if len(sources) == 1 else CombinedActivations(sources, modules)


def file_of(kind: Kind) -> OtherKind:
    """The file of a kind outside of the layers."""
    return cast(OtherKind, import_module(kind.file))


def describe_modules(config: RunConfig) -> dict[str, ModuleUnits]:
    """The units of each module that a run file names, in its order; no weights are read and no function is called.

    Raises:
        UserError: there is no such module, or it is named twice.
    """
    subject, modules = config.subject, modules_of(config)
    within = [name for name in modules if needs_model([name])]
    found = check_modules(subject.model, within, subject.trust_remote_code, subject) if within else {}
    found |= {name: file_of(kind_of(name)).units_of(config, name) for name in modules if name not in found}
    return {name: found[name] for name in modules}


def check_sources(config: RunConfig) -> None:
    """Raises UserError where a module's function or files cannot be used, or the corpus is not that of the files."""
    for name in describe_modules(config):
        kind = kind_of(name)
        if not kind.any_text and not config.corpus.source.startswith(PRECOMPUTED):
            raise UserError(
                f"corpus.source = {config.corpus.source!r}, but precomputed activations are there for their own sequences only; "
                f'write corpus.source = "{name}"'
            )
        if not kind.in_layers:
            file_of(kind).check(config, name)


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
