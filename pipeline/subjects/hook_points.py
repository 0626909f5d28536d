"""Hook points: the places in a model that have units, and their activations, taken by plain hooks while the model runs as it is.

Shapes: B sequences, T tokens, U units, D dimensions of the residual stream.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from pipeline.subjects.activations import ModuleUnits, Receive, TokenBatch


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
    side: Literal["input", "output"] = "input"
    """Whether its first positional input is meant, or its output (the first, where there are several): (B, T, ...)."""
    read: Callable[[torch.Tensor], Any] | None = None
    """From that tensor to activations (B, T, U), or to SparseActivations; None where it holds them already."""
    signed: bool = True
    """Whether activations can be negative."""
    sparse: bool = False
    """Whether `read` gives SparseActivations."""
    vectors: Callable[[], UnitVectors] | None = None
    """The vectors of its units, where the weights have any."""


class ModelActivations:
    """The sites of a model without its head; see `ActivationSource`."""

    def __init__(self, base_model: Any, sites: Mapping[str, HookPoint]) -> None:
        """base_model: a transformers model without its head, on the device or the devices where it is to run."""
        self.base_model = base_model
        self.sites = dict(sites)
        self.modules = {name: ModuleUnits(site.width, site.signed, site.sparse) for name, site in sites.items()}

    def run(self, batch: TokenBatch, receive: Receive) -> None:
        """A forward pass that ends where the last site has been received."""
        device = input_device(self.base_model)
        inputs = {"input_ids": torch.from_numpy(batch.token_ids).to(device)}
        if batch.lengths.min() < batch.token_ids.shape[1]:
            mask = np.arange(batch.token_ids.shape[1]) < batch.lengths[:, None]
            inputs["attention_mask"] = torch.from_numpy(mask.astype(np.int64)).to(device)
        with torch.inference_mode(), hooked(self.sites, receive, batch.token_ids.shape), suppress(LastHookPointReached):
            self.base_model(**inputs, use_cache=False)


def input_device(base_model: Any) -> torch.device:
    """Where token ids have to be: with the embeddings, or on the CPU where accelerate fetches those when they are used."""
    device: torch.device = base_model.get_input_embeddings().weight.device
    return torch.device("cpu") if device.type == "meta" else device


class LastHookPointReached(Exception):
    """Ends a forward pass: what comes after the last recorded site would be computed for nothing."""


@contextmanager
def hooked(
    sites: Mapping[str, HookPoint], receive: Callable[[str, Any], None], shape: Sequence[int] | None = None
) -> Iterator[None]:
    """Call `receive` with a site's name and activations whenever its torch module runs.

    The forward pass is left with LastHookPointReached when every site has been received once.

    Args:
        shape: B and T of the batch; some models, such as OPT, flatten the two in front of the MLP.
    """
    waiting = set(sites)

    def take(site: HookPoint, tensor: Any) -> None:
        if tensor.ndim == 2 and shape is not None:
            tensor = tensor.unflatten(0, tuple(shape))
        receive(site.name, tensor if site.read is None else site.read(tensor))
        waiting.discard(site.name)
        if not waiting:
            waiting.update(sites)
            raise LastHookPointReached

    with ExitStack() as hooks:
        for site in sites.values():
            hooks.enter_context(_hook(site, take))
        yield


def _hook(site: HookPoint, take: Callable[[HookPoint, Any], None]) -> Any:
    if site.side == "input":
        return site.module.register_forward_pre_hook(
            lambda _, inputs, named: take(site, inputs[0] if inputs else named["hidden_states"]), with_kwargs=True
        )
    return site.module.register_forward_hook(
        lambda _, __, output: take(site, output if isinstance(output, torch.Tensor) else output[0])
    )
