"""The source of the activations that a run file asks for: hook points of the model, functions of texts and folders as one.

A hook point is a place in the model that has units; plain hooks take its activations while the model runs as it is.

Shapes: B sequences of a batch, T tokens of a sequence, U units, D dimensions of the residual stream.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import groupby
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pipeline.config import RunConfig, Subject
from pipeline.errors import UserError
from pipeline.subjects.activations import ActivationSource, ModuleUnits, Receive, TokenBatch, of_units
from pipeline.subjects.architecture import Layer, Side, stack
from pipeline.subjects.loading.model_loading import load_subject, skeleton
from pipeline.subjects.module_kinds import PRECOMPUTED, kind_of, modules_of, needs_model, parse_module, refuse_twice

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class UnitVectors:
    """What the weights of a module say of its U units, in D dimensions of the residual stream; None where they say nothing."""

    reads: torch.Tensor | None
    """(U, D) a unit's activation grows with the projection of its normalised input on this vector."""
    writes: torch.Tensor | None
    """(U, D) what a unit adds to the residual stream for each unit of activation."""


@dataclass(frozen=True)
class HookPoint:
    """A place in a model that has units."""

    name: str
    """As in the run file: `layers.3.mlp`."""
    module: nn.Module
    """The torch module to hook."""
    width: int
    """U, the number of units."""
    side: Side = "input"
    """Whether its first positional input is meant, or its output (the first, where there are several): (B, T, ...)."""
    read: Callable[[torch.Tensor], Any] | None = None
    """From that tensor to activations (B, T, U), or to SparseActivations; None where it holds them already."""
    signed: bool = True
    """Whether activations can be negative."""
    sparse: bool = False
    """Whether `read` gives SparseActivations."""
    vectors: Callable[[], UnitVectors] | None = None
    """The vectors of its units, where the weights have any."""
    norm: nn.Module | None = None
    """The norm whose output the units read, if one stands in front of them."""

    @property
    def units(self) -> ModuleUnits:
        return ModuleUnits(self.width, self.signed, self.sparse)


class LayerKind(Protocol):
    """What the file of a kind of module within the layers offers."""

    def hook_point(self, layer: Layer, entry: Any) -> HookPoint:
        """The hook point of a module, by what the run file says of it. Raises UserError: the layer does not have it."""
        ...


def find_hook_points(base_model: Any, modules: Sequence[str], subject: Subject | None = None) -> dict[str, HookPoint]:
    """The hook points of modules, in their order.

    Args:
        base_model: a transformers model's `.base_model`: the layers without the head that predicts tokens.
        modules: names such as `layers.3.mlp`.
        subject: where the parts of an unknown model are, and what sparse coders and directions there are.

    Raises:
        UserError: a layer or kind of unit that the model does not have, or a name that occurs twice.
    """
    paths = subject.paths if subject else {}
    blocks = stack(base_model, paths)
    refuse_twice(modules)
    found = {}
    for name in modules:
        module = parse_module(name, len(blocks))
        layer = Layer(name, module.layer, blocks[module.layer], base_model.config, paths)
        kind = cast(LayerKind, import_module(module.kind.file))
        found[name] = kind.hook_point(layer, module.settings(subject))
    return found


class ModelActivations:
    """The hook points of a model without its head; see `ActivationSource`."""

    def __init__(self, base_model: Any, hook_points: Mapping[str, HookPoint]) -> None:
        """base_model: a transformers model without its head, on the device or the devices where it is to run."""
        self.base_model = base_model
        self.hook_points = dict(hook_points)
        self.modules = {name: point.units for name, point in hook_points.items()}

    def run(self, batch: TokenBatch, receive: Receive) -> None:
        """A forward pass that ends where the last hook point has been received."""
        device = input_device(self.base_model)
        inputs = {"input_ids": torch.from_numpy(batch.token_ids).to(device)}
        if batch.lengths.min() < batch.token_ids.shape[1]:
            mask = np.arange(batch.token_ids.shape[1]) < batch.lengths[:, None]
            inputs["attention_mask"] = torch.from_numpy(mask.astype(np.int64)).to(device)
        with (
            torch.inference_mode(),
            hooked(self.hook_points, receive, batch.token_ids.shape),
            suppress(LastHookPointReached),
        ):
            self.base_model(**inputs, use_cache=False)


def input_device(base_model: Any) -> torch.device:
    """Where token ids have to be: with the embeddings, or on the CPU where accelerate fetches those when they are used."""
    device: torch.device = base_model.get_input_embeddings().weight.device
    return torch.device("cpu") if device.type == "meta" else device


class LastHookPointReached(Exception):
    """Ends a forward pass: what comes after the last recorded hook point would be computed for nothing."""


@contextmanager
def hooked(
    hook_points: Mapping[str, HookPoint], receive: Callable[[str, Any], None], shape: Sequence[int] | None = None
) -> Iterator[None]:
    """Call `receive` with a hook point's name and activations whenever its torch module runs.

    The forward pass is left with LastHookPointReached when every hook point has been received once.

    Args:
        shape: B and T of the batch; some models, such as OPT, flatten the two in front of the MLP.
    """
    waiting = set(hook_points)

    def take(hook_point: HookPoint, tensor: Any) -> None:
        if tensor.ndim == 2 and shape is not None:
            tensor = tensor.unflatten(0, tuple(shape))
        receive(hook_point.name, tensor if hook_point.read is None else hook_point.read(tensor))
        waiting.discard(hook_point.name)
        if not waiting:
            waiting.update(hook_points)
            raise LastHookPointReached

    with ExitStack() as hooks:
        for hook_point in hook_points.values():
            hooks.enter_context(_hook(hook_point, take))
        yield


def _hook(hook_point: HookPoint, take: Callable[[HookPoint, Any], None]) -> Any:
    if hook_point.side == "input":
        return hook_point.module.register_forward_pre_hook(
            lambda _, inputs, named: take(hook_point, inputs[0] if inputs else named["hidden_states"]), with_kwargs=True
        )
    return hook_point.module.register_forward_hook(
        lambda _, __, output: take(hook_point, output if isinstance(output, torch.Tensor) else output[0])
    )


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
    for kind, names in groupby(others, key=kind_of):
        sources += kind.outside().open_sources(config, list(names))
    return sources[0] if len(sources) == 1 else CombinedActivations(sources, modules)


def describe_modules(config: RunConfig) -> dict[str, ModuleUnits]:
    """The units of each module that a run file names, in its order; no weights are read and no function is called.

    Raises:
        UserError: there is no such module, or it is named twice.
    """
    modules = modules_of(config)
    within = [name for name in modules if needs_model([name])]
    found = units_in_layers(config.subject, within) if within else {}
    found |= {name: kind_of(name).outside().units_of(config, name) for name in modules if name not in found}
    return {name: found[name] for name in modules}


def units_in_layers(subject: Subject, modules: Sequence[str]) -> dict[str, ModuleUnits]:
    """The units of modules within the layers of a model, found without its weights.

    Raises:
        UserError: the model has no such module, or one is named twice.
    """
    model = skeleton(subject.model, subject.trust_remote_code)
    return {name: point.units for name, point in find_hook_points(model.base_model, modules, subject).items()}


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
            kind.outside().check(config, name)


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
    """
    found: dict[int, Floats] = {}
    taken: dict[str, Any] = {}
    for _, group in groupby(sorted(sequences, key=lambda one: len(one[1])), key=lambda one: len(one[1])):
        members = list(group)
        for start in range(0, len(members), batch_size):
            part = members[start : start + batch_size]
            seq_ids, rows = zip(*part, *part[:1] * (batch_size - len(part)), strict=True)
            token_ids = np.asarray(rows, np.int64)
            lengths = np.full(batch_size, token_ids.shape[1])
            source.run(
                TokenBatch(token_ids, lengths, np.asarray(seq_ids)),
                lambda name, given: taken.update({name: of_units(given, units)}) if name == module else None,
            )
            values = taken[module].float().cpu().numpy()
            found.update((seq_id, values[row].copy()) for row, (seq_id, _) in enumerate(part))
    return found
