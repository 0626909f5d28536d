"""Where a sparse coder reads, from the names that training programs give to places in a model.

- TransformerLens: `blocks.3.hook_resid_post`. Its `ln2.hook_normalized` is what the MLP reads, before the gain and the bias of
  the norm in front of it.
- transformers: the path of a module whose output is encoded, or its input by a transcoder: `model.layers.3.mlp`.
"""

import re
from dataclasses import dataclass

from pipeline.errors import UserError

HOOKS = {
    "hook_resid_post": "residual",
    "hook_resid_pre": "residual_in",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "mlp.hook_post": "mlp",
}
NORMALISED = "ln2.hook_normalized"
OUTPUTS = {"": "residual", "mlp": "mlp_out", "attn": "attn_out", "attention": "attn_out", "self_attn": "attn_out"}
INPUTS = {"": "residual_in", "mlp": "mlp_in"}
_HOOK = re.compile(r"blocks\.(?P<layer>\d+)\.(?P<rest>.+)")
_MODULE = re.compile(r"(?:.*\.)?(?:layers|h|blocks)\.(?P<layer>\d+)(?:\.(?P<rest>.+))?")


@dataclass(frozen=True)
class Place:
    """A place in a model, as the files of a sparse coder tell it."""

    layer: int | None
    reads: str
    """As `SparseCoder.reads`, or empty for a place that cannot be recorded here."""
    name: str
    """As the files call it."""
    before_gain: bool = False
    """Whether the gain and bias of the norm in front of the MLP have to be taken off what is read."""


def place_of(name: str, transcoder: bool = False) -> Place:
    """The place that a name of TransformerLens or of transformers means; `reads` and `layer` as far as they are known."""
    hook = _HOOK.fullmatch(name)
    if hook and hook["rest"] == NORMALISED:
        return Place(int(hook["layer"]), "mlp_in", name, before_gain=True)
    if hook and "hook_" in hook["rest"]:
        return Place(int(hook["layer"]), HOOKS.get(hook["rest"], ""), name)
    module = _MODULE.fullmatch(name)
    if module:
        known = INPUTS if transcoder else OUTPUTS
        return Place(int(module["layer"]), known.get(module["rest"] or "", ""), name)
    return Place(None, "", name)


def refuse_hidden(name: str) -> None:
    """Raises UserError for places within attention, whatever the run file says of them."""
    if name.endswith(("hook_z", "hook_q", "hook_k", "hook_v")):
        raise UserError(
            f"the sparse coder reads {name!r}, the heads' own values, which cannot be recorded; "
            "choose one that reads the residual stream, attn_out, mlp_in, mlp_out or mlp"
        )
