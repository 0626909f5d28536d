"""Keys of the tokens around a position, by which sequences with the same peak are told to be the same.

The key of position t is a hash of the token ids at t - context .. t + context; a place beyond the sequence's ends counts
as the id -1. So equal keys mean equal tokens at equal distances from the peak, up to collisions of 64-bit hashes, and
a key is the same on every machine and in every batch.
"""

import numpy as np
import numpy.typing as npt

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio, odd: the increment of SplitMix64 (Steele, Lea and Flood 2014)."""
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
"""The multipliers of its finaliser."""


def neighbourhood_keys(
    token_ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], context: int
) -> npt.NDArray[np.int64]:
    """The key of each position.

    Args:
        token_ids: (B, T), padded on the right with anything.
        lengths: (B,) real tokens of each sequence.
        context: tokens on either side of a position.

    Returns:
        (B, T) keys; those of the padding mean nothing.
    """
    batch, length = token_ids.shape
    padded = np.full((batch, length + 2 * context), -1, np.int64)
    real = np.arange(length) < lengths[:, None]
    padded[:, context : context + length] = np.where(real, token_ids, -1)
    keys = np.zeros((batch, length), np.uint64)
    for place in range(2 * context + 1):
        keys = _mixed(keys * MULTIPLIER + padded[:, place : place + length].astype(np.uint64) + MULTIPLIER)
    return keys.view(np.int64)


def _mixed(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    keys = (keys ^ (keys >> np.uint64(30))) * MIX[0]
    keys = (keys ^ (keys >> np.uint64(27))) * MIX[1]
    return keys ^ (keys >> np.uint64(31))
