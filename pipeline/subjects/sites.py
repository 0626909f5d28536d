"""Where the units of a subject are: from `layers.3.mlp` to the torch module that sees their activations."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pipeline.config import Subject
from pipeline.errors import UserError
from pipeline.subjects.architecture import part, stack
from pipeline.subjects.hook_points import HookPoint, UnitVectors
from pipeline.subjects.kinds.directions import dimension_hook_point, directions_hook_point
from pipeline.subjects.kinds.heads import head_hook_point
from pipeline.subjects.kinds.neurons import neuron_hook_point

__all__ = ["HookPoint", "UnitVectors", "all_hook_points", "find_hook_points"]

KINDS = ("mlp", "attn", "residual", "attn_out", "mlp_out", "sae:NAME", "directions:NAME")
MODULE = re.compile(r"layers\.(?P<layer>\d+)\.(?P<kind>[a-z_]+)(:(?P<name>.+))?")


def find_hook_points(base_model: Any, modules: Sequence[str], subject: Subject | None = None) -> dict[str, HookPoint]:
    """The sites that a run file names, in its order.

    Args:
        base_model: a transformers model's `.base_model`: the layers without the head that predicts tokens.
        modules: names such as `layers.3.mlp`.
        subject: where the parts of an unknown model are, and what sparse coders and directions there are.

    Raises:
        UserError: a layer or kind of unit that the model does not have, or a name that occurs twice.
    """
    blocks = stack(base_model, subject.paths if subject else None)
    twice = sorted({name for name in modules if list(modules).count(name) > 1})
    if twice:
        raise UserError(f"subject.modules names {', '.join(twice)} more than once; name each module once")
    return {name: _site(base_model, blocks, name, subject) for name in modules}


def all_hook_points(base_model: Any, subject: Subject | None = None) -> dict[str, HookPoint]:
    """The MLP neurons of every layer that has some, by layer."""
    paths = subject.paths if subject else None
    blocks = enumerate(stack(base_model, paths))
    names = {f"layers.{layer}.mlp": block for layer, block in blocks if part(block, "down_proj", paths) is not None}
    return {name: neuron_hook_point(name, block, paths) for name, block in names.items()}


def _site(base_model: Any, blocks: Sequence[nn.Module], module: str, subject: Subject | None) -> HookPoint:
    layer, kind, name = _parsed(module, len(blocks))
    block, config = blocks[layer], base_model.config
    paths = subject.paths if subject else None
    if kind == "mlp":
        return neuron_hook_point(module, block, paths)
    if kind == "attn":
        return head_hook_point(module, block, config, paths)
    if kind == "directions":
        found = _named("directions", name, module, subject.directions if subject else {})
        return directions_hook_point(module, layer, found, block, config, paths)
    if kind == "sae":
        from pipeline.subjects.saes.latents import latent_hook_point

        coder = _named("saes", name, module, subject.saes if subject else {})
        return latent_hook_point(module, coder, layer, block, config, paths)
    return dimension_hook_point(module, kind, block, config, paths)


def _parsed(module: str, layers: int) -> tuple[int, str, str]:
    """Layer, kind and name of what a run file calls `layers.3.kind:name`."""
    match = MODULE.fullmatch(module)
    kinds = {kind.removesuffix(":NAME"): kind.endswith(":NAME") for kind in KINDS}
    if match is None or match["kind"] not in kinds or kinds[match["kind"]] != (match["name"] is not None):
        raise UserError(
            f"subject.modules: {module!r} is not a kind of module that can be recorded; allowed: layers.0.mlp to "
            f"layers.{layers - 1}.mlp, and with another kind in the place of mlp: {', '.join(KINDS[1:])}; "
            "black_box:NAME; precomputed:NAME"
        )
    layer, kind = int(match["layer"]), module.split(".", 2)[2]
    if layer >= layers:
        raise UserError(
            f"subject.modules: {module!r} does not exist, because the model has {layers} layers; "
            f"allowed: layers.0.{kind} to layers.{layers - 1}.{kind}"
        )
    if module != f"layers.{layer}.{kind}":
        raise UserError(f"subject.modules: write layers.{layer}.{kind} instead of {module!r}")
    return layer, match["kind"], match["name"] or ""


def _named(section: str, name: str, module: str, known: Mapping[str, Any]) -> Any:
    if name in known:
        return known[name]
    there = f"it names {', '.join(known)}" if known else "it names none"
    raise UserError(
        f"subject.modules: {module!r} needs a [subject.{section}.{name}] in the run file; {there}; add it, or correct the name"
    )
