"""Rounded activations are those of float16 where it reaches, and merged rows round nothing else."""

import numpy as np
import pyarrow as pa
import pytest

from stages.record.exemplars import rounded
from stages.record.merge import merge
from tests.stages.record.sums_twin import MODULE, make_world

HOSTILE = np.asarray([0.0, -0.0, np.nan, np.inf, -np.inf, 3.4028235e38, -3.4028235e38, 1e-45], np.float32)


def test_eleven_bits_are_those_of_float16() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32) * np.float32(1000)
    ties = (np.arange(2048, 4096, dtype=np.float32) + np.float32(0.5)) / np.float32(1024)
    for some in (values, ties, values.reshape(100, 100)[:, ::2]):
        np.testing.assert_array_equal(rounded(some, 11), some.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("bits", [2, 7, 11, 16, 23])
def test_no_more_bits_are_left_and_the_nearest_value_is_taken(bits: int) -> None:
    values = np.random.default_rng(bits).standard_normal(10_000).astype(np.float32)
    found = rounded(values, bits)
    assert not (found.view(np.uint32) & np.uint32(2 ** (24 - bits) - 1)).any()
    assert (np.abs(found - values) <= 2.0**-bits * np.abs(values)).all()
    np.testing.assert_array_equal(rounded(found, bits), found)
    assert (np.diff(rounded(np.sort(values), bits)) >= 0).all()


def test_all_bits_are_left_alone() -> None:
    np.testing.assert_array_equal(rounded(HOSTILE, 24).view(np.uint32), HOSTILE.view(np.uint32))


def test_what_is_not_finite_or_at_the_end_of_the_range_stays() -> None:
    found = rounded(HOSTILE, 11)
    np.testing.assert_array_equal(found[:-1].view(np.uint32), HOSTILE[:-1].view(np.uint32))
    assert abs(found[-1]) < 1e-38
    np.testing.assert_array_equal(rounded(np.asarray([70_001], np.float32), 11), [70_016])


def test_merged_activations_are_rounded_and_their_maxima_are_not() -> None:
    world = make_world(seed=5)
    partial = {name: pa.concat_tables(pieces) for name, pieces in world.partial(range(45)).items()}

    def merged(bits: int) -> dict[str, pa.Table]:
        config = world.config.model_copy(update={"activation_bits": bits})
        return merge([partial], MODULE, 0, world.width, config, {})

    whole, fewer = merged(24), merged(8)
    assert fewer["units"].equals(whole["units"])
    assert fewer["exemplars"].drop(["activations"]).equals(whole["exemplars"].drop(["activations"]))
    exact, short = (
        rows["exemplars"]["activations"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        for rows in (whole, fewer)
    )
    np.testing.assert_array_equal(short, rounded(exact, 8))
    assert (short != exact).mean() > 0.5
