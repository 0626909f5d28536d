"""Whether the kernels of triton find on a device what torch finds there, tried on made-up activations before they are trusted."""

import logging
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stages.record.sums import UnitSums, make_batch
from stages.record.tokens import TokenTable
from stages.settings import PerSplit, Record

LOG = logging.getLogger(__name__)
SEQUENCES, TOKENS, UNITS, VOCABULARY = 40, 11, 200, 6
BATCH = 16
CONFIG = Record(top=PerSplit(explain=5, select=3, report=2), skip_positions=1)
ROUNDING = 1e-12
"""Largest relative difference of sums that are added up in another order."""


@cache
def triton_agrees(device: torch.device) -> bool:
    """Whether triton can be used on a device; says in the log why not."""
    from stages.record.torch_sums import TorchSums

    try:
        from stages.record.triton_sums import TritonSums

        different = [
            name
            for (name, ours), (_, theirs) in zip(
                numbers(sums_of(TritonSums, device)), numbers(sums_of(TorchSums, device)), strict=True
            )
            if not np.allclose(ours, theirs, rtol=ROUNDING, atol=0, equal_nan=True)
        ]
    except Exception as error:  # noqa: BLE001 - whatever a compiler or a driver raises, there is another way
        LOG.warning("recording by torch, as triton fails on %s: %s: %s", device, type(error).__name__, error)
        return False
    if different:
        LOG.warning("recording by torch, as triton finds other %s on %s", ", ".join(different), device)
    return not different


def sums_of(kind: type, device: torch.device) -> UnitSums:
    """What an accumulator finds of made-up activations, with ties, NaN and both signs."""
    rng = np.random.default_rng(0)
    values = rng.integers(-40, 40, (SEQUENCES, TOKENS, UNITS)) / np.float32(16)
    values[rng.random(values.shape) < 0.001] = np.nan
    token_ids = rng.integers(0, VOCABULARY, (SEQUENCES, TOKENS))
    lengths, tokens = rng.integers(3, TOKENS + 1, SEQUENCES), TokenTable(np.arange(1, VOCABULARY), 1)
    accumulator = kind(UNITS, TOKENS, len(tokens.token_ids), CONFIG, True, device)
    for start in range(0, SEQUENCES, BATCH):
        part = slice(start, start + BATCH)
        batch = make_batch(token_ids[part], lengths[part], np.arange(SEQUENCES)[part], CONFIG, tokens)
        accumulator.add(torch.from_numpy(values[part]).to(device, torch.float32), batch)
    found: UnitSums = accumulator.sums()
    return found


def numbers(sums: UnitSums) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """The parts of the sums by name; what is kept in no order is sorted."""
    for name in ("n_nonfinite", "minimum", "maximum", "above", "histogram", "token_sums"):
        yield name, getattr(sums, name)
    yield "power sums", sums.power_sums.sum(axis=1)
    for polarity, top in sums.top.items():
        order = np.lexsort((top.seq_ids, top.values), axis=1)
        kept = [np.take_along_axis(part, order, axis=1) for part in (top.values, top.seq_ids, top.keys)]
        vectors = np.take_along_axis(top.vectors[:UNITS], order[:, :, None], axis=1)
        yield from zip((f"{part} of {polarity}" for part in ("values", "seq_ids", "keys")), kept, strict=True)
        yield f"activations of {polarity}", vectors
