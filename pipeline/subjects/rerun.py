"""The activations of some units on some sequences, by running their source again on these alone.

Shapes: B sequences of a batch, T tokens of a sequence, U units asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.subjects.activations import ActivationSource, SparseActivations, TokenBatch

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]


def activations_on(
    source: ActivationSource,
    module: str,
    units: Sequence[int],
    sequences: Iterable[tuple[int, Sequence[int]]],
    batch_size: int,
) -> Mapping[int, Floats]:
    """What some units of a module do on some sequences.

    Every batch has `batch_size` rows of one length, the first repeated where sequences are missing: so the activations on
    a sequence are the same to the last bit whatever other sequences are asked for.

    Args:
        units: distinct indices, in any order.
        sequences: seq_id and token ids of each, at least one token.

    Returns:
        (T, U) float32 activations by seq_id, in the order of `units`, at every token, those that the record leaves out too.

    Raises:
        ValueError: the source has no such module, or `units` names one that it has not, or one twice.
    """
    width = source.modules[module].width if module in source.modules else 0
    if len(set(units)) < len(units) or not all(0 <= unit < width for unit in units):
        raise ValueError(f"units {list(units)} of {module!r}, which has {width}; they must be distinct")
    wanted = np.asarray(units, dtype=np.int64)
    found: dict[int, Floats] = {}
    for part in _of_one_length(sequences, batch_size):
        rows = [*part, *[part[0]] * (batch_size - len(part))]
        token_ids = np.asarray([ids for _, ids in rows], dtype=np.int64)
        lengths = np.full(batch_size, token_ids.shape[1], dtype=np.int64)
        seq_ids = np.asarray([seq_id for seq_id, _ in rows], dtype=np.int64)
        taken = _run(source, module, wanted, TokenBatch(token_ids, lengths, seq_ids))
        found.update((seq_id, taken[row].copy()) for row, (seq_id, _) in enumerate(part))
    return found


def _of_one_length(
    sequences: Iterable[tuple[int, Sequence[int]]], size: int
) -> Iterable[list[tuple[int, Sequence[int]]]]:
    """Parts of at most `size` sequences of the same length."""
    lengths: dict[int, list[tuple[int, Sequence[int]]]] = {}
    for seq_id, ids in sequences:
        lengths.setdefault(len(ids), []).append((seq_id, ids))
    for _, members in sorted(lengths.items()):
        rest = iter(members)
        while part := list(islice(rest, size)):
            yield part


def _run(source: ActivationSource, module: str, units: npt.NDArray[np.int64], batch: TokenBatch) -> Floats:
    """(B, T, U)"""
    taken: list[Floats] = []

    def receive(name: str, activations: Any) -> None:
        if name == module:
            sparse = isinstance(activations, SparseActivations)
            taken.append(_from_sparse(activations, units) if sparse else _from_dense(activations, units))

    source.run(batch, receive)
    (values,) = taken
    return values


def _from_dense(activations: "torch.Tensor", units: npt.NDArray[np.int64]) -> Floats:
    import torch

    chosen = activations[..., torch.as_tensor(units, device=activations.device)]
    values: Floats = chosen.float().cpu().numpy()
    return values


def _from_sparse(activations: SparseActivations, units: npt.NDArray[np.int64]) -> Floats:
    batch, tokens, width = activations.shape
    column = np.full(width, -1, dtype=np.int64)
    column[units] = np.arange(len(units))
    places = column[activations.units.cpu().numpy()]  # (N,)
    kept = places >= 0
    values = np.zeros((batch * tokens, len(units)), dtype=np.float32)
    values[activations.positions.cpu().numpy()[kept], places[kept]] = activations.values.float().cpu().numpy()[kept]
    return values.reshape(batch, tokens, len(units))
