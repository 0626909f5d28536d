"""What a null run records (`run.null = "permuted"`): each unit's activations on one sequence stand on another one.

Everything behind it, from the top-k to the token table, is then worked out from activations that have nothing to do with the tokens
they stand on. Exchanging the activations of kept exemplars alone would not do: a unit's `top` sequences have been chosen for their
words, and words that are commoner there than in `random` ones would still tell the bands apart.

Within a batch, the sequences of a split stand in a circle, and a unit's activations move on by a number of places that is drawn for
the unit, never by none. On their new sequence they also begin at a place drawn for the unit and the sequence, and go round, so that
places tell nothing either. A longer sequence has some of them twice, a shorter one lacks some. Without another sequence of its split in the
batch, a sequence has none, as for activations that are not finite.

Shapes: B sequences of a batch, T tokens, U units, K of them.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.subjects.activations import SparseActivations
from stages.record.recorded_batch import Batch

if TYPE_CHECKING:
    import torch

AT_ONCE = 256
"""Units whose activations are moved at a time."""
Ints = npt.NDArray[np.int64]


def given_to_others(activations: Any, batch: Batch, rng: np.random.Generator) -> Any:
    """The activations of a module on a batch, each unit's on other sequences.

    Args:
        activations: a (B, T, U) torch tensor, or SparseActivations; they stay as they are.
        rng: of the module and the batch, so that rows do not depend on the shards.

    Returns:
        The same kind, NaN where no activation is left for a token, and 0 where tokens do not count.
    """
    import torch

    width = activations.shape[2]
    givers, turns = drawn_givers(batch.splits, width, rng), rng.integers(2**31, size=(len(batch.splits), width))
    parts: list[Any] = []
    for start in range(0, width, AT_ONCE):
        units = np.arange(start, min(start + AT_ONCE, width))
        moves = places_from(batch.counted, givers[:, units], turns[:, units])
        if isinstance(activations, SparseActivations):
            found = _moved(activations.of(torch.as_tensor(units, device=activations.units.device)), moves)
            place, unit = found.flatten(0, 1).nonzero(as_tuple=True)  # NaN is not zero
            parts.append((place, unit + start, found.flatten(0, 1)[place, unit]))
        else:
            parts.append(_moved(activations[:, :, start : start + len(units)], moves))
    if not isinstance(activations, SparseActivations):
        return torch.cat(parts, dim=2)
    positions, columns, values = (torch.cat(part) for part in zip(*parts, strict=True))
    order = torch.argsort(positions, stable=True)
    return SparseActivations(activations.shape, positions[order], columns[order], values[order])


def drawn_givers(splits: Ints, width: int, rng: np.random.Generator) -> Ints:
    """(B, U) the sequence whose activations each one gets: another one of its split, and -1 where there is none.

    Args:
        splits: (B,) of the sequences.
    """
    givers = np.full((len(splits), width), -1, np.int64)
    for split in np.unique(splits):
        members = np.flatnonzero(splits == split)
        if len(members) > 1:
            steps = rng.integers(1, len(members), size=width)
            givers[members] = members[(np.arange(len(members))[:, None] + steps) % len(members)]
    return givers


def places_from(counted: npt.NDArray[np.bool_], givers: Ints, turns: Ints) -> Ints:
    """(B, T, K) place in the flattened (B * T,) batch that each token's activation comes from.

    Returns:
        -1 where none is left for it, and -2 where the token does not count.

    Args:
        counted: (B, T) positions that count; each one gets the activation of one that counts.
        givers: (B, K) as of `drawn_givers`.
        turns: (B, K) by how many places activations are turned round.
    """
    tokens = counted.shape[1]
    numbers = counted.sum(axis=1)
    order = np.argsort(~counted, axis=1, kind="stable")  # (B, T) positions that count come first
    found = np.full((*counted.shape, givers.shape[1]), -2, np.int64)
    for b in range(len(counted)):
        giver = givers[b]
        there = numbers[giver]  # (K,)
        rank = (np.arange(numbers[b])[:, None] + turns[b]) % np.maximum(there, 1)
        found[b, counted[b]] = np.where((giver >= 0) & (there > 0), giver * tokens + order[giver, rank], -1)
    return found


def _moved(values: "torch.Tensor", places: Ints) -> "torch.Tensor":
    """(B, T, K) values from where `places` says."""
    import torch

    where = torch.as_tensor(places, device=values.device).flatten(0, 1)
    found = values.flatten(0, 1).gather(0, where.clamp(min=0))
    found = found.masked_fill(where == -1, torch.nan).masked_fill(where == -2, 0)
    return found.view(values.shape)
