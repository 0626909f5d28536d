"""MLPs whose activations are computed by whoever records them: in place and in one pass, where torch makes two and new memory.

While `fused` lasts, the forward of an MLP that it knows calls `finish` with what goes into the activation function, and
`finish` puts act(gate) * up in its place. An MLP is known where its parts have the usual names, its activation function is one of
`fast_activations`, and a trial on random input agrees with its own forward to float32 rounding. Every other MLP is left as it
is, as is everything that does not run on a CPU in float32. There RMS norms and rotary embeddings are computed in one pass too, see
`fast_norms` and `fast_rotary`; for GPUs see `fast_gelu`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.subjects.fast_activations import NAMES, finish_rows
from pipeline.subjects.fast_gelu import fast_gelu
from pipeline.subjects.fast_norms import fast_norms
from pipeline.subjects.fast_rotary import fast_rotary
from pipeline.subjects.sites import Site

GATED = (("gate_proj", "up_proj", "down_proj", "act_fn"),)
"""What the gate, what it is multiplied by, the projection behind and the activation function are called."""
PLAIN = (
    ("c_fc", "c_proj", "act"),
    ("dense_h_to_4h", "dense_4h_to_h", "act"),
    ("fc1", "fc2", "activation_fn"),
    ("fc_in", "fc_out", "act"),
    ("up_proj", "down_proj", "act_fn"),
)
"""The same of MLPs without a gate."""
ROUNDING = 1e-5
"""Largest difference from the MLP's own forward, over the largest output."""

Finish = Callable[[str, torch.Tensor, torch.Tensor | None, int], None]
"""Takes the name of a site, gate and up, (B, T, U) each, and a number of `fast_activations`. It puts act(gate) * up, or act(gate)
where up is None, into the memory of gate, which is contiguous."""


@dataclass(frozen=True)
class Mlp:
    """An MLP that is known."""

    whole: nn.Module
    gate: nn.Module
    up: nn.Module | None
    down: nn.Module
    activation: int

    def forward(self, name: str, finish: Finish, inputs: torch.Tensor) -> Any:
        """What `whole.forward` gives."""
        gate = self.gate(inputs).contiguous()
        up = None if self.up is None else self.up(inputs).contiguous()
        finish(name, gate, up, self.activation)
        return self.down(gate)


@contextmanager
def fused(base_model: nn.Module, sites: Mapping[str, Site], finish: Finish) -> Iterator[frozenset[str]]:
    """Let `finish` compute the activations of the sites of known MLPs; gives their names."""
    found = known_mlps(base_model, sites)
    try:
        for name, mlp in found.items():
            mlp.whole.forward = _forward(mlp, name, finish)
        with _faster(base_model):
            yield frozenset(found)
    finally:
        for mlp in found.values():
            mlp.whole.__dict__.pop("forward", None)


def _forward(mlp: Mlp, name: str, finish: Finish) -> Callable[..., Any]:
    def forward(*args: torch.Tensor, **named: torch.Tensor) -> Any:
        (inputs,) = (*args, *named.values())
        return mlp.forward(name, finish, inputs)

    return forward


def known_mlps(base_model: nn.Module, sites: Mapping[str, Site]) -> dict[str, Mlp]:
    """By the names of sites, the MLPs whose activations these are and that are known."""
    if not _plain(base_model):
        return {}
    parents = {id(child): parent for parent in base_model.modules() for child in parent.children()}
    found = {}
    for site in sites.values():
        parent = parents.get(id(site.module))
        if parent is not None and site.side == "input" and site.read is None and "forward" not in parent.__dict__:
            mlp = _known(parent, site.module)
            if mlp is not None:
                found[site.name] = mlp
    return found


@contextmanager
def _faster(base_model: nn.Module) -> Iterator[None]:
    """Let what else a model computes be computed in fewer passes."""
    with ExitStack() as stack:
        if _plain(base_model):
            stack.enter_context(fast_norms(base_model))
            stack.enter_context(fast_rotary(base_model))
        elif all(part.device.type == "cuda" for part in base_model.parameters()):
            stack.enter_context(fast_gelu(base_model))
        yield


def _plain(base_model: nn.Module) -> bool:
    """Whether all of it is on a CPU in float32."""
    return all(part.device.type == "cpu" and part.dtype == torch.float32 for part in base_model.parameters())


def _known(parent: nn.Module, down: nn.Module) -> Mlp | None:
    if len(signature(parent.forward).parameters) != 1:
        return None
    for names in (*GATED, *PLAIN):
        *linear, function = [getattr(parent, name, None) for name in names]
        modules = [module for module in linear if isinstance(module, nn.Module)]
        if len(modules) == len(linear) and modules[-1] is down and callable(function):
            activation = known_activation(function)
            if activation is None:
                return None
            mlp = Mlp(parent, modules[0], modules[1] if len(modules) == 3 else None, down, activation)
            return mlp if _agrees(mlp) else None
    return None


def known_activation(function: Callable[[torch.Tensor], torch.Tensor]) -> int | None:
    """The number of the function in `fast_activations` that gives the same values, if one does."""
    inputs = np.concatenate([np.linspace(-30, 30, 2001), np.geomspace(1e-6, 5, 200), -np.geomspace(1e-6, 5, 200)])
    values = inputs.astype(np.float32)[None]
    with torch.inference_mode():
        expected = function(torch.from_numpy(values.copy())).numpy()
    for number in NAMES.values():
        rows = values.copy()
        finish_rows(number, rows, rows[:, :0])
        if (np.abs(rows - expected) <= 1e-6 * np.abs(values)).all():
            return number
    return None


def _agrees(mlp: Mlp) -> bool:
    """Whether a trial gives what the MLP's own forward gives."""

    def finish(_: str, gate: torch.Tensor, up: torch.Tensor | None, activation: int) -> None:
        rows = gate.flatten(0, 1).numpy()
        finish_rows(activation, rows, rows[:, :0] if up is None else up.flatten(0, 1).numpy())

    weight = mlp.gate.weight
    assert isinstance(weight, torch.Tensor)
    width = weight.shape[1] if isinstance(mlp.gate, nn.Linear) else weight.shape[0]
    inputs = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = mlp.whole(inputs), mlp.forward("", finish, inputs)
    if not isinstance(expected, torch.Tensor) or expected.shape != found.shape:
        return False
    return bool((expected - found).abs().max() <= ROUNDING * expected.abs().max())
