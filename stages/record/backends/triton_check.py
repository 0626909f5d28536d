"""The self-check of the kernels of triton: they are trusted once they find what torch finds there on made-up activations."""

import logging
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.subjects.activations import TokenBatch
from stages.record.backends.torch_sums import TorchSums
from stages.record.recorded_batch import TokenTable, make_batch
from stages.settings import PerSplit, Record

LOG = logging.getLogger(__name__)
SEQUENCES, TOKENS, UNITS, VOCABULARY, BATCH = 40, 11, 200, 6, 16
"""Sizes of what is made up."""
CONFIG = Record(top=PerSplit(explain=5, select=3, report=2), skip_positions=1)
ROUNDING = 1e-12
"""Largest relative difference of sums that are added up in another order."""


@cache
def triton_agrees(device: torch.device) -> bool:
    """Whether triton can be used on a device; says in the log why not."""
    try:
        from stages.record.backends.triton_sums import TritonSums

        ours, theirs = (made_up_sums(kind, device) for kind in (TritonSums, TorchSums))
    except Exception as error:  # noqa: BLE001 - whatever a compiler or a driver raises, there is another way
        LOG.warning("recording by torch, as triton fails on %s: %s: %s", device, type(error).__name__, error)
        return False
    different = [
        name
        for name, found in ours.items()
        if not np.allclose(found, theirs[name], rtol=ROUNDING, atol=0, equal_nan=True)
    ]
    if different:
        LOG.warning("recording by torch, as triton finds other %s on %s", ", ".join(different), device)
    return not different


def made_up_sums(kind: type, device: torch.device) -> dict[str, npt.NDArray[Any]]:
    """What an accumulator finds of made-up activations, with ties, NaN and both signs; the top-k in one order."""
    rng = np.random.default_rng(0)
    values = rng.integers(-40, 40, (SEQUENCES, TOKENS, UNITS)) / np.float32(16)
    values[rng.random(values.shape) < 0.001] = np.nan
    token_ids = rng.integers(0, VOCABULARY, (SEQUENCES, TOKENS))
    lengths, tokens = rng.integers(3, TOKENS + 1, SEQUENCES), TokenTable(np.arange(1, VOCABULARY), 1)
    accumulator = kind(device, UNITS, TOKENS, len(tokens.token_ids), CONFIG)
    for start in range(0, SEQUENCES, BATCH):
        part = slice(start, start + BATCH)
        batch = TokenBatch(token_ids[part], lengths[part], np.arange(SEQUENCES)[part])
        accumulator.add(torch.from_numpy(values[part]).to(device, torch.float32), make_batch(batch, CONFIG, tokens))
    sums = accumulator.sums()
    names = ("n_nonfinite", "minimum", "maximum", "above", "histogram", "token_sums")
    found = {name: getattr(sums, name) for name in names} | {"power sums": sums.power_sums.sum(axis=1)}
    for polarity, top in sums.top.items():
        order = np.lexsort((top.seq_ids, top.values), axis=1)
        for name in ("values", "seq_ids", "keys"):
            found[f"{name} of {polarity}"] = np.take_along_axis(getattr(top, name), order, axis=1)
        found[f"activations of {polarity}"] = np.take_along_axis(top.vectors[0:UNITS], order[:, :, None], axis=1)
    return found
