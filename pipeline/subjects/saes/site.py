"""The site of a sparse coder's latents: its encoder runs where the model's own activations come by."""

from collections.abc import Callable

import torch
from torch import nn

from pipeline.config import SparseCoder
from pipeline.errors import UserError
from pipeline.subjects.activations import SparseActivations
from pipeline.subjects.architecture import norm_scale
from pipeline.subjects.saes.coder import Coder
from pipeline.subjects.saes.encoder import Encoder
from pipeline.subjects.saes.files import open_coder
from pipeline.subjects.saes.places import Place
from pipeline.subjects.site import Site, UnitVectors

READABLE = ("residual", "residual_in", "attn_out", "mlp_in", "mlp_out", "mlp")


def sae_site(
    name: str,
    coder: SparseCoder,
    layer: int,
    place: Callable[[str], tuple[nn.Module, str]],
    hidden_size: int | None = None,
    norm: nn.Module | None = None,
) -> Site:
    """Where the latents of a sparse coder are read; its weights are read when the first activations come.

    Args:
        name: as in the run file: `layers.3.sae:NAME`.
        coder: its settings.
        layer: the number of the layer in `name`.
        place: from a place as in `SparseCoder.reads` to a torch module and which side of it, `input` or `output`.
        hidden_size: dimensions of the residual stream, checked against the files where it is given.
        norm: the norm in front of the layer's MLP; needed for coders that read what it gives before its gain.

    Raises:
        UserError: files that are not there, cannot be used, or belong to another layer or model.
    """
    found = open_coder(coder, layer)
    where = _place(name, coder, found, layer)
    if where.before_gain and norm is None:
        raise UserError(
            f"{name}: by its files the sparse coder reads {where.name!r}, before the gain of the norm in front of the MLP, and "
            'this layer has no such norm; choose another coder, or say what it reads by `reads = "..."`'
        )
    reads, undone = where.reads, norm if where.before_gain else None
    if hidden_size is not None and reads != "mlp" and found.inputs != hidden_size:
        raise UserError(
            f"{name}: {found.files[-1]} encodes {found.inputs} dimensions, and {reads} of this model has {hidden_size}; "
            "choose a coder that was trained on this model"
        )
    module, side = place(reads)
    assert side in ("input", "output")
    return Site(
        name=name,
        module=module,
        width=found.width,
        side="input" if side == "input" else "output",
        read=LazyEncoder(name, found, undone),
        signed=False,
        sparse=True,
        vectors=lambda: UnitVectors(None, None) if reads == "mlp" else UnitVectors(found.reads(), found.writes()),
    )


class LazyEncoder:
    """Encodes activations with weights that are read onto their device when the first ones come."""

    def __init__(self, name: str, coder: Coder, norm: nn.Module | None = None) -> None:
        """norm: its gain and bias are taken off the activations."""
        self.name = name
        self.coder = coder
        self.norm = norm
        self._encoders: dict[torch.device, Encoder] = {}

    def __call__(self, x: torch.Tensor) -> SparseActivations:
        if x.shape[-1] != self.coder.inputs:
            raise UserError(
                f"{self.name}: {self.coder.files[-1]} encodes {self.coder.inputs} dimensions, and what it reads has "
                f"{x.shape[-1]}; choose a coder that was trained on this model, or correct `reads`"
            )
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
        bias = getattr(self.norm, "bias", None)
        shift = torch.zeros_like(gain) if bias is None else bias.detach().float()
        return encoder.after(gain.to(device), shift.to(device))


def _place(name: str, settings: SparseCoder, coder: Coder, layer: int) -> Place:
    """What is encoded, by the run file or else by the coder's files."""
    place = coder.place
    if place is not None and place.layer is not None and place.layer != layer:
        raise UserError(
            f"{name}: the files at {settings.path} belong to layer {place.layer} ({place.name}); "
            f"write layers.{place.layer}.sae:..., or {{layer}} in `path`"
        )
    if settings.reads != "auto":
        return Place(layer, settings.reads, settings.reads)
    if place is None:
        return Place(layer, "residual", "residual")
    if place.reads not in READABLE:
        raise UserError(
            f"{name}: by its files the sparse coder reads {place.name!r}, which is none of {', '.join(READABLE)}; "
            'where one of them is the same, say so by `reads = "..."`'
        )
    return place
