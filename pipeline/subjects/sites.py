"""Where the units of a subject are: from `layers.3.mlp` to the torch module whose input holds their activations."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from pipeline.config import Subject
from pipeline.errors import UserError

STACKS = ("layers", "h", "blocks", "decoder.layers", "language_model.layers", "model.layers", "text_model.layers")
"""Where a base model keeps the list of its layers."""

DOWN_PROJECTIONS = {
    "mlp.down_proj": "Llama, Mistral, Qwen, Gemma, OLMo, Phi-3, StableLM",
    "mlp.c_proj": "GPT-2, GPT-Neo, StarCoder2",
    "mlp.dense_4h_to_h": "GPT-NeoX, Pythia, BLOOM, Falcon",
    "mlp.fc_out": "GPT-J, CodeGen",
    "mlp.fc2": "Phi",
    "ffn.down_proj": "MPT",
    "fc2": "OPT",
}
"""Where a layer keeps the projection from its MLP's neurons back to the residual stream, and in which families."""

KINDS = ("mlp",)
MODULE = re.compile(r"layers\.(?P<layer>\d+)\.(?P<kind>.+)")


@dataclass(frozen=True)
class UnitVectors:
    """What the weights of a module say of its U units, in D dimensions of the residual stream; None where they say nothing."""

    reads: torch.Tensor | None
    """(U, D) a unit's activation grows with the projection of its normalised input on this vector."""
    writes: torch.Tensor | None
    """(U, D) what a unit adds to the residual stream for each unit of activation."""


@dataclass(frozen=True)
class Site:
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


def find_sites(base_model: nn.Module, modules: Sequence[str], subject: Subject | None = None) -> dict[str, Site]:  # noqa: ARG001
    """The sites that a run file names, in its order.

    Args:
        base_model: a causal model's `.base_model`: the layers without the head that predicts tokens.
        modules: names such as `layers.3.mlp`.
        subject: where the parts of an unknown model are, and what sparse coders and directions there are.

    Raises:
        UserError: a layer or kind of unit that the model does not have, or a name that occurs twice.
    """
    stack = _stack(base_model)
    twice = sorted({name for name in modules if list(modules).count(name) > 1})
    if twice:
        raise UserError(f"subject.modules names {', '.join(twice)} more than once; name each module once")
    return {name: _site(base_model, stack, name) for name in modules}


def all_sites(base_model: nn.Module) -> dict[str, Site]:
    """Every site of a model, by layer."""
    sites = {}
    for layer, block in enumerate(_stack(base_model)):
        found = _down_projection(block)
        if found is not None:
            name = f"layers.{layer}.mlp"
            sites[name] = Site(name, found, _inputs(found))
    return sites


def _site(base_model: nn.Module, stack: Sequence[nn.Module], name: str) -> Site:
    match = MODULE.fullmatch(name)
    last = len(stack) - 1
    if match is None or match["kind"] not in KINDS:
        raise UserError(
            f"subject.modules: {name!r} is not a kind of module that can be recorded; "
            f"allowed: layers.0.mlp to layers.{last}.mlp"
        )
    layer = int(match["layer"])
    if layer > last:
        raise UserError(
            f"subject.modules: {name!r} does not exist, because the model has {last + 1} layers; "
            f"allowed: layers.0.mlp to layers.{last}.mlp"
        )
    if name != f"layers.{layer}.mlp":
        raise UserError(f"subject.modules: write layers.{layer}.mlp instead of {name!r}")
    found = _down_projection(stack[layer])
    if found is None:
        have = ", ".join(all_sites(base_model)) or "none in this model"
        raise UserError(
            f"subject.modules: layer {layer} of {type(base_model).__name__} has no MLP whose neurons can be recorded "
            f"(looked for {', '.join(DOWN_PROJECTIONS)}); layers that have one: {have}"
        )
    return Site(name, found, _inputs(found), vectors=lambda: _vectors(stack[layer], found))


def _vectors(block: nn.Module, down: nn.Module) -> UnitVectors:
    from pipeline.subjects.mlp_vectors import mlp_vectors

    parent = next(part for part in block.modules() if any(child is down for child in part.children()))
    return mlp_vectors(parent, down)


def _stack(base_model: nn.Module) -> Sequence[nn.Module]:
    """The list of a model's layers."""
    for path in STACKS:
        found = _descend(base_model, path)
        if isinstance(found, nn.ModuleList):
            return list(found)
    raise UserError(
        f"the layers of a {type(base_model).__name__} were not found (looked for {', '.join(STACKS)}); "
        "choose a model of a family among: " + "; ".join(DOWN_PROJECTIONS.values())
    )


def _down_projection(block: nn.Module) -> nn.Module | None:
    for path in DOWN_PROJECTIONS:
        found = _descend(block, path)
        if found is not None and hasattr(found, "weight"):
            return found
    return None


def _descend(module: nn.Module, path: str) -> nn.Module | None:
    found: object = module
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, nn.Module) else None


def _inputs(projection: nn.Module) -> int:
    """Number of inputs of a torch Linear, or of GPT-2's Conv1D, which stores its weight transposed."""
    if isinstance(projection, nn.Linear):
        return projection.in_features
    return int(projection.weight.shape[0])  # type: ignore[index]
