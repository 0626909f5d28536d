"""What is not zero is found as by sorting and comparing everything."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.subjects.saes import encoder, extraction

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


@pytest.mark.parametrize("width", [3, 64, 65, 300])
@pytest.mark.parametrize("kind", ["random", "tied", "broken", "low"])
def test_the_largest_are_those_found_by_sorting(kind: str, width: int) -> None:
    before = draw(kind, width)
    for k in (1, 3, min(width, 50)):
        rows, units, values = extraction.largest(before, k)
        expected = [(row, unit) for row in range(len(before)) for unit in by_sorting(before[row], k)]
        assert list(zip(rows.tolist(), units.tolist(), strict=True)) == expected
        np.testing.assert_array_equal(values, before[rows, units])


@pytest.mark.parametrize("width", [3, 64, 65, 300])
@pytest.mark.parametrize("kind", ["random", "tied", "broken", "low"])
def test_what_is_above_its_threshold_is_found(kind: str, width: int) -> None:
    before = draw(kind, width)
    threshold = np.abs(np.random.default_rng(1).integers(0, 3, width)).astype(np.float32)
    rows, units, values = extraction.above_threshold(before, threshold)
    expected = np.argwhere(~(before <= threshold))
    np.testing.assert_array_equal(np.stack([rows, units], axis=1), expected)
    np.testing.assert_array_equal(values, before[rows, units])


@pytest.mark.parametrize("kind", ["random", "broken", "low"])
def test_torch_finds_the_same_on_any_device(kind: str) -> None:
    before = torch.from_numpy(draw(kind, 100))
    threshold = torch.linspace(0, 1, 100)
    for one, other in (
        (encoder.largest_by_torch(before, 7), encoder.largest(before, 7)),
        (encoder.above_by_torch(before, threshold), encoder.above_threshold(before, threshold)),
    ):
        for found, expected in zip(one, other, strict=True):
            assert found.dtype == expected.dtype
            if kind != "broken":
                assert torch.equal(found, expected)
        assert one[0].bincount(minlength=40).tolist() == other[0].bincount(minlength=40).tolist()
