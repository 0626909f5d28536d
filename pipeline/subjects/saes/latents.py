"""The hook point of a sparse coder: its encoder runs where the model's own activations pass."""

import functools

import torch
from torch import nn

from pipeline.config import SparseCoder
from pipeline.errors import UserError
from pipeline.subjects.activation_sources import HookPoint, UnitVectors
from pipeline.subjects.activations import SparseActivations
from pipeline.subjects.architecture import Layer, Side, descend, norm_scale, parameter
from pipeline.subjects.saes.coder import Coder
from pipeline.subjects.saes.coder_files import open_coder
from pipeline.subjects.saes.encoder import Encoder
from pipeline.subjects.saes.places import Place

READABLE = ("residual", "residual_in", "attn_out", "mlp_in", "mlp_out", "mlp")
FROM_STREAM = ("residual", "residual_in", "mlp_in")
"""Those that are read from the residual stream, the last one through a norm."""
POST_NORMS = {"attn_out": "attn_post_norm", "mlp_in": "mlp_post_norm", "mlp_out": "mlp_post_norm"}
"""The norm that what a module writes goes through, by what is read of it."""


def hook_point(layer: Layer, entry: SparseCoder) -> HookPoint:
    """Where the latents of a sparse coder are read; its weights are read when the first activations come.

    Raises:
        UserError: files that are not there, cannot be used, or belong to another layer or model.
    """
    coder = open_coder(entry, layer.number)
    where = _place(layer, entry, coder)
    gain = layer.part("mlp_norm") if where.before_gain else None
    if where.before_gain and gain is None:
        raise UserError(
            f"{layer.module}: by its files the sparse coder reads {where.name!r}, before the gain of the norm in front of the MLP, "
            'and this layer has no such norm; choose another coder, or say what it reads by `reads = "..."`'
        )
    module, side = _hook_point(layer, where)
    width = layer.width(where.reads)
    if coder.inputs != width:
        raise UserError(
            f"{layer.module}: {coder.weights} encodes {coder.inputs} dimensions, and {where.reads} of this model has {width}; "
            "choose a coder that was trained on this model, or correct `reads`"
        )
    return HookPoint(
        layer.module,
        module,
        coder.width,
        side,
        read=LazyEncoder(layer.module, coder, gain),
        signed=False,
        sparse=True,
        vectors=functools.partial(latent_vectors, layer, coder, where),
        norm=layer.norm_before(where.reads),
    )


class LazyEncoder:
    """Encodes activations with weights that are read onto their device when the first ones come."""

    def __init__(self, name: str, coder: Coder, norm: nn.Module | None = None) -> None:
        """norm: its gain and bias are taken off the activations."""
        self.name, self.coder, self.norm = name, coder, norm
        self._encoders: dict[torch.device, Encoder] = {}

    def __call__(self, x: torch.Tensor) -> SparseActivations:
        if x.device not in self._encoders:
            self._encoders[x.device] = self._load(x.device)
        return self._encoders[x.device].encode(x)

    def _load(self, device: torch.device) -> Encoder:
        encoder = self.coder.load(device)
        if self.norm is None:
            return encoder
        gain = norm_scale(self.norm, self.coder.inputs)
        if not gain.all():
            raise UserError(f"{self.name}: the norm in front of the MLP has a gain of 0, which cannot be taken off")
        has_bias = getattr(self.norm, "bias", None) is not None
        bias = parameter(self.norm, "bias").float() if has_bias else torch.zeros(self.coder.inputs)
        return encoder.after(gain.to(device), bias.to(device))


def latent_vectors(layer: Layer, coder: Coder, where: Place) -> UnitVectors:
    """What latents read from the residual stream and write to it, with the weights of the norms before and behind them.

    An autoencoder of what the MLP reads writes nothing to the stream. Where a norm stands behind a module whose output is
    encoded, the length of `writes` is right up to one factor for each token.
    """
    if where.reads == "mlp":
        return UnitVectors(None, None)
    reads = coder.reads() if where.reads in FROM_STREAM else None
    if reads is not None and where.reads == "mlp_in" and not where.before_gain:
        reads = reads * norm_scale(layer.part("mlp_norm"), reads.shape[1])
    if where.reads == "mlp_in" and coder.reconstructs:
        return UnitVectors(reads, None)
    writes = coder.writes()
    if where.module and where.reads in POST_NORMS:
        writes = writes * norm_scale(layer.part(POST_NORMS[where.reads]), writes.shape[1])
    return UnitVectors(reads, writes)


def _hook_point(layer: Layer, where: Place) -> tuple[nn.Module, Side]:
    """The output of a module that the files name as transformers does: some families have a norm behind it."""
    if not where.module or where.reads == "mlp_in":
        return layer.place(where.reads)
    module = descend(layer.block, where.module)
    if module is None:
        raise UserError(
            f"{layer.module}: by its files the sparse coder reads what {where.name!r} gives, and this layer has no "
            f'{where.module!r}; choose another coder, or say what it reads by `reads = "..."`'
        )
    return module, "output"


def _place(layer: Layer, settings: SparseCoder, coder: Coder) -> Place:
    """What is encoded, by the run file or else by the coder's files."""
    place = coder.place
    if place is not None and place.layer is not None and place.layer != layer.number:
        raise UserError(
            f"{layer.module}: the files at {settings.path} belong to layer {place.layer} ({place.name}); "
            f"write layers.{place.layer}.sae:..., or {{layer}} in `path`"
        )
    if settings.reads != "auto":
        return Place(layer.number, settings.reads, settings.reads)
    if place is None:
        return Place(layer.number, "residual", "residual")
    if place.reads not in READABLE:
        raise UserError(
            f"{layer.module}: by its files the sparse coder reads {place.name!r}, which is none of {', '.join(READABLE)}; "
            'where one of them is the same, say so by `reads = "..."`'
        )
    return place
