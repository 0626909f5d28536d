"""How sparse coders are recognised by the names of their files, and where they read by what these names tell.

Training programs call places in a model by names of their own:

- TransformerLens: `blocks.3.hook_resid_post`. Its `hook_attn_out` and `hook_mlp_out` come after the norm that Gemma 2 and 3 put
  behind attention and the MLP. Its `ln2.hook_normalized` is what the MLP reads, before the gain and the bias of the norm in
  front of it.
- transformers: the path of a module whose output is encoded, or its input by a transcoder: `model.layers.3.mlp`. What a module
  gives comes before a norm behind it.
- Gemma Scope (Lieberum et al. 2024): the path of a file, such as gemma-scope-2b-pt-res/layer_20/.../params.npz. The
  transcoders read what the norm in front of the MLP gives before its gain.

Imports no torch, as fingerprints are worked out for `status` and `query` too.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import SparseCoder
from pipeline.errors import UserError

WEIGHTS = {"saelens": "sae_weights.safetensors", "sparsify": "sae.safetensors", "gemma_scope": "params.npz"}
"""The file by which each format is known."""
PICKLED = {".pt", ".pth", ".bin", ".pkl", ".ckpt"}
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
GEMMA_SCOPE = {"res": "residual", "mlp": "mlp_out", "transcoders": "mlp_in"}
_HOOK = re.compile(r"blocks\.(?P<layer>\d+)\.(?P<rest>.+)")
_MODULE = re.compile(r"(?:.*\.)?(?:layers|h|blocks)\.(?P<layer>\d+)(?:\.(?P<rest>.+))?")
_SITE = re.compile(r"gemma-scope-[^/]+-(res|mlp|att|transcoders)(?:-|/|$)")
_LAYER = re.compile(r"(?:^|/)layer_(\d+)(?:/|$)")


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
    module: str = ""
    """Path of the module in the layer that is meant; empty for the layer itself, and where the name is none of transformers'."""


def place_of(name: str, transcoder: bool = False) -> Place:
    """The place that a name of TransformerLens or of transformers means; `reads` and `layer` as far as they are known."""
    hook = _HOOK.fullmatch(name)
    if hook and hook["rest"] == NORMALISED:
        return Place(int(hook["layer"]), "mlp_in", name, before_gain=True)
    if hook and "hook_" in hook["rest"]:
        return Place(int(hook["layer"]), HOOKS.get(hook["rest"], ""), name)
    module = _MODULE.fullmatch(name)
    if module:
        known, rest = INPUTS if transcoder else OUTPUTS, module["rest"] or ""
        return Place(int(module["layer"]), known.get(rest, ""), name, module=rest)
    return Place(None, "", name)


def sparsify_place(folder: Path, transcoder: bool = False) -> Place | None:
    """The place that a folder of sparsify, or the one above it, has the name of; None where neither has one."""
    resolved = folder.resolve()
    found = (place_of(name, transcoder) for name in (resolved.name, resolved.parent.name))
    return next((place for place in found if place.layer is not None), None)


def gemma_scope_place(file: Path) -> Place | None:
    """The place that the path of a file of Gemma Scope tells; None where it tells none.

    Raises:
        UserError: the path of a coder that reads what cannot be recorded.
    """
    text = (file.parent.resolve() / file.name).as_posix()  # the file itself is a link in the cache of the hub
    if "/embedding/" in text:
        raise UserError(f"{file} encodes the embedding, which cannot be recorded; choose the coder of a layer")
    site, layer = _SITE.search(text), _LAYER.search(text)
    if site is not None and site[1] == "att":
        raise UserError(
            f"{file} encodes the heads' own values, which cannot be recorded; choose res, mlp or transcoders"
        )
    if site is None and layer is None:
        return None
    name = site[1] if site else "res"
    return Place(int(layer[1]) if layer else None, GEMMA_SCOPE[name], name, before_gain=name == "transcoders")


def coder_path(settings: SparseCoder, layer: int) -> Path:
    """The folder or file of a layer's coder."""
    path = Path(settings.path.replace("{layer}", str(layer))).expanduser()
    if not path.exists():
        raise UserError(
            f"subject.saes: {path} does not exist; download the coder and name its folder, or correct `path`"
        )
    return path


def coder_format(settings: SparseCoder, path: Path) -> str:
    """The format of a coder; raises UserError where the folder holds none."""
    form = _known(settings, path)
    if form is not None:
        return form
    pickled = sorted(name for name in _names(path) if Path(name).suffix in PICKLED)
    if pickled:
        raise UserError(
            f"subject.saes: {path} holds {pickled[0]}, a pickle, which can run code; "
            "have the program that made it save the coder as safetensors"
        )
    layers = sorted(file.parent.name for weights in WEIGHTS.values() for file in path.glob(f"*/{weights}"))
    hint = f"; name one of its folders, such as {layers[0]}, or write {{layer}} for the number" if layers else ""
    raise UserError(
        f"subject.saes: {path} is no sparse coder (looked for {', '.join(WEIGHTS.values())}){hint or '; correct `path`'}"
    )


def place_by_path(settings: SparseCoder, layer: int) -> Place | None:
    """Where a coder reads, as far as its path alone tells; None where the run file or the files tell it.

    A transcoder is taken for an autoencoder here: which of them it is stands in its files.
    """
    path = coder_path(settings, layer)
    form = _known(settings, path) if settings.reads == "auto" else None
    if form == "gemma_scope":
        return gemma_scope_place(path if path.is_file() else path / WEIGHTS[form])
    if form == "sparsify":
        return sparsify_place(path.parent if path.is_file() else path)
    return None


def _known(settings: SparseCoder, path: Path) -> str | None:
    if settings.format != "auto":
        return settings.format
    if path.suffix == ".npz" and path.is_file():
        return "gemma_scope"
    names = _names(path)
    return next((form for form, weights in WEIGHTS.items() if weights in names), None)


def _names(path: Path) -> set[str]:
    return {path.name} if path.is_file() else {file.name for file in path.iterdir()}
