"""Hook points: the places in a model that have units, and their activations, taken by plain hooks while the model runs as it is.

Shapes: B sequences, T tokens, U units, D dimensions of the residual stream.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import nn

from pipeline.config import Subject
from pipeline.subjects.activations import ModuleUnits, Receive, TokenBatch
from pipeline.subjects.architecture import Layer, Side, stack
from pipeline.subjects.module_kinds import parse_module, refuse_twice


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
        """The hook point of a module.

        Args:
            entry: what the run file says of it; None where the kind has no entries.

        Raises:
            UserError: the layer does not have it.
        """
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


def mlp_modules(base_model: Any) -> list[str]:
    """The names of the MLPs that have neurons."""
    blocks = [
        Layer(f"layers.{number}.mlp", number, block, base_model.config)
        for number, block in enumerate(stack(base_model))
    ]
    return [layer.module for layer in blocks if layer.part("down_proj") is not None]


class ModelActivations:
    """The hook_points of a model without its head; see `ActivationSource`."""

    def __init__(self, base_model: Any, hook_points: Mapping[str, HookPoint]) -> None:
        """base_model: a transformers model without its head, on the device or the devices where it is to run."""
        self.base_model = base_model
        self.hook_points = dict(hook_points)
        self.modules = {name: point.units for name, point in hook_points.items()}

    def run(self, batch: TokenBatch, receive: Receive) -> None:
        """A forward pass that ends where the last hook_point has been received."""
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
    """Ends a forward pass: what comes after the last recorded hook_point would be computed for nothing."""


@contextmanager
def hooked(
    hook_points: Mapping[str, HookPoint], receive: Callable[[str, Any], None], shape: Sequence[int] | None = None
) -> Iterator[None]:
    """Call `receive` with a hook_point's name and activations whenever its torch module runs.

    The forward pass is left with LastHookPointReached when every hook_point has been received once.

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
