"""The activations of a unit on the tokens of a text as one number.

Shapes: B texts, T tokens, U units.
"""

from typing import Literal

import torch

from pipeline.subjects.activations import Activations, SparseActivations

Pool = Literal["max", "mean", "last"]


def pooled(activations: Activations, counted: torch.Tensor, pool: Pool) -> torch.Tensor:
    """(B, U) float32 largest, mean or last activation over the counted tokens; NaN where one of those is.

    Args:
        activations: (B, T, U), or SparseActivations; those that are not among these are 0.
        counted: (B, T) bool on the same device; each text has one such token at least.
    """
    if isinstance(activations, SparseActivations):
        return _sparse(activations, counted, pool)
    if pool == "last":
        places = _last(counted)
        rows = torch.arange(len(places), device=places.device)
        return activations[rows, places].float()
    within = counted.unsqueeze(-1)  # (B, T, 1)
    if pool == "max":
        return activations.masked_fill(~within, -torch.inf).amax(dim=1).float()
    total: torch.Tensor = activations.float().masked_fill(~within, 0.0).sum(dim=1)
    return total / within.sum(dim=1)


def _sparse(activations: SparseActivations, counted: torch.Tensor, pool: Pool) -> torch.Tensor:
    texts, tokens, units = activations.shape
    used = counted if pool != "last" else _only(_last(counted), counted)
    kept = used.flatten()[activations.positions]
    rows = activations.positions[kept] // tokens
    places = rows * units + activations.units[kept]
    values = activations.values[kept].float()
    found = torch.zeros(texts * units, device=values.device)
    if pool == "mean":
        found = found.index_add(0, places, values).reshape(texts, units)
        return found / counted.sum(dim=1, keepdim=True)
    if pool == "last":
        return found.index_copy(0, places, values).reshape(texts, units)
    floor = torch.full_like(found, -torch.inf).scatter_reduce(0, places, values, "amax")
    seen = torch.zeros_like(found).index_add(0, places, torch.ones_like(values)).reshape(texts, units)
    whole = seen == counted.sum(dim=1, keepdim=True)  # no token is left on which the unit is 0
    largest = floor.reshape(texts, units)
    return torch.where(whole | largest.isnan(), largest, largest.clamp_min(0.0))


def _last(counted: torch.Tensor) -> torch.Tensor:
    """(B,) position of the last counted token."""
    positions = torch.arange(counted.shape[1], device=counted.device)
    return torch.where(counted, positions, -1).amax(dim=1)


def _only(places: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """(B, T) true at one position of each text alone."""
    only = torch.zeros_like(counted)
    only[torch.arange(len(places), device=places.device), places] = True
    return only
