"""What is not zero is found as by sorting and comparing everything."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.subjects.saes.encoder import above_threshold, largest

Floats = npt.NDArray[np.float32]


def draw(kind: str, width: int) -> Floats:
    rng = np.random.default_rng(width)
    if kind == "tied":
        return rng.integers(-2, 3, (40, width)).astype(np.float32)
    values = rng.standard_normal((40, width)).astype(np.float32)
    if kind == "broken":
        values[rng.random(values.shape) < 0.02] = np.nan
        values[rng.random(values.shape) < 0.02] = np.inf
        values[rng.random(values.shape) < 0.02] = -np.inf
    if kind == "low":
        values -= 4
    return values


def by_sorting(row: Floats, k: int) -> list[int]:
    """Units of the k largest values above 0, NaN before all, of equals the first ones."""
    keys = np.where(np.isnan(row), np.inf, row)
    order = sorted(range(len(row)), key=lambda unit: (-keys[unit], unit))[:k]
    return sorted(unit for unit in order if keys[unit] > 0)


@pytest.mark.parametrize("width", [3, 64, 300])
@pytest.mark.parametrize("kind", ["random", "low"])
def test_the_largest_are_those_found_by_sorting(kind: str, width: int) -> None:
    before = draw(kind, width)
    for k in (1, 3, min(width, 50)):
        rows, units, values = (tensor.numpy() for tensor in largest(torch.from_numpy(before), k))
        expected = [(row, unit) for row in range(len(before)) for unit in by_sorting(before[row], k)]
        assert list(zip(rows.tolist(), units.tolist(), strict=True)) == expected
        np.testing.assert_array_equal(values, before[rows, units])


def test_of_tied_or_broken_values_the_largest_are_as_many() -> None:
    for kind in ("tied", "broken"):
        before = draw(kind, 65)
        rows, units, values = (tensor.numpy() for tensor in largest(torch.from_numpy(before), 7))
        assert np.bincount(rows, minlength=40).tolist() == [len(by_sorting(row, 7)) for row in before]
        np.testing.assert_array_equal(values, before[rows, units])
        assert np.isnan(values).sum() == np.minimum(np.isnan(before).sum(axis=1), 7).sum()


@pytest.mark.parametrize("width", [3, 64, 300])
@pytest.mark.parametrize("kind", ["random", "tied", "broken", "low"])
def test_what_is_above_its_threshold_is_found(kind: str, width: int) -> None:
    before = draw(kind, width)
    threshold = np.abs(np.random.default_rng(1).integers(0, 3, width)).astype(np.float32)
    found = above_threshold(torch.from_numpy(before), torch.from_numpy(threshold))
    rows, units, values = (tensor.numpy() for tensor in found)
    np.testing.assert_array_equal(np.stack([rows, units], axis=1), np.argwhere(~(before <= threshold)))
    np.testing.assert_array_equal(values, before[rows, units])
