"""The activations on a text as one number, dense and sparse alike, against a loop over texts and units."""

import numpy as np
import pytest
import torch

from pipeline.subjects.activations import SparseActivations
from pipeline.subjects.text_functions import Pool, pooled

B, T, U = 6, 5, 7


def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations, most of them zero, and which tokens count: one at least in each text, with gaps."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(B, T, U)) * (rng.random((B, T, U)) < 0.4)
    values[0] = -np.abs(rng.normal(size=(T, U)))  # no zero anywhere
    values[1, 2, 3] = np.nan
    counted = rng.random((B, T)) < 0.6
    counted[np.arange(B), rng.integers(0, T, B)] = True
    counted[1, 2] = True
    return torch.tensor(values, dtype=torch.float32), torch.tensor(counted)


def by_hand(values: torch.Tensor, counted: torch.Tensor, pool: str) -> list[list[float]]:
    found = []
    for text, within in zip(values.double().numpy(), counted.numpy(), strict=True):
        own = text[within]
        found.append({"max": own.max(axis=0), "mean": own.mean(axis=0), "last": own[-1]}[pool].tolist())
    return found


@pytest.mark.parametrize("pool", ["max", "mean", "last"])
@pytest.mark.parametrize("seed", range(4))
def test_dense_and_sparse_activations_pool_as_by_hand(pool: Pool, seed: int) -> None:
    values, counted = drawn(seed)
    wanted = by_hand(values, counted, pool)
    np.testing.assert_allclose(pooled(values, counted, pool), wanted, rtol=1e-5)
    positions, units = torch.nonzero(values.reshape(B * T, U) != 0, as_tuple=True)
    sparse = SparseActivations((B, T, U), positions, units, values.reshape(B * T, U)[positions, units])
    np.testing.assert_allclose(pooled(sparse, counted, pool), wanted, rtol=1e-5)


def test_what_does_not_count_is_not_looked_at_even_where_it_is_no_number() -> None:
    values = torch.tensor([[[np.nan], [2.0], [np.inf]]])
    for pool in ("max", "mean", "last"):
        assert pooled(values, torch.tensor([[False, True, False]]), pool).tolist() == [[2.0]]
