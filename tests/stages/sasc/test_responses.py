"""Sums and strongest n-grams: those of a plain twin, and the same to the last bit however the list is cut and ordered."""

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
import torch

from stages.sasc.ngram_merge import mean_and_sigma, merge
from stages.sasc.responses import ModuleResponses, Sums

N, U, KEPT = 240, 5, 12
LIST = pd.DataFrame({"text": [f"t{number}" for number in range(N)], "n": [1] * N, "count": range(N, 0, -1)})


def values_of(kind: str) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(1)
    if kind == "random":
        return rng.normal(size=(N, U)) * 10.0 ** rng.integers(-8, 8, (N, U))
    if kind == "tied":
        return rng.integers(-2, 3, (N, U)).astype(np.float64)
    return 1e9 + rng.normal(size=(N, U)) * 1e-3  # far from 0 beside its spread


def tables_of(partials: list[pa.Table], polarities: list[str], kept: int) -> tuple[pa.Table, pa.Table]:
    found = merge(pa.concat_tables(partials), polarities, kept, LIST)
    return found["responses"], found["ngrams"]


def merged(
    values: npt.NDArray[np.float64], cuts: list[int], order: npt.NDArray[np.int64], dtype: torch.dtype = torch.float64
) -> tuple[pa.Table, pa.Table]:
    """The rows of a list that is cut into shards, each of which takes in batches of 7 in some order."""
    partials = []
    for start, stop in zip([0, *cuts], [*cuts, N], strict=True):
        responses = ModuleResponses("m", list(range(U)), KEPT, KEPT)
        own = order[(order >= start) & (order < stop)]
        for first in range(0, len(own), 7):
            ids = own[first : first + 7]
            responses.add(ids, torch.from_numpy(values[ids]).to(dtype))
        partials.append(responses.rows())
    return tables_of(partials, ["+", "-"], KEPT)


@pytest.mark.parametrize("kind", ["random", "tied", "far"])
def test_means_spreads_and_strongest_are_those_of_the_twin(kind: str) -> None:
    values = values_of(kind)
    responses, strongest = merged(values, [], np.random.default_rng(0).permutation(N))
    rows = responses.to_pandas()
    assert rows["status"].to_list() == ["ok"] * 2 * U
    assert rows["polarity"].to_list() == ["+", "-"] * U
    ngrams = strongest.to_pandas().set_index(["index", "polarity"])
    for unit in range(U):
        exact = [Fraction(value) for value in values[:, unit].tolist()]
        mean = sum(exact, Fraction(0)) / N
        variance = sum(((one - mean) ** 2 for one in exact), Fraction(0)) / N
        assert rows["mean"][2 * unit] == float(mean)
        assert rows["sigma"][2 * unit] == pytest.approx(float(variance) ** 0.5, rel=1e-12)
        for polarity, sign in (("+", -1), ("-", 1)):
            wanted = sorted(range(N), key=lambda row: (sign * values[row, unit], row))[:KEPT]
            found = ngrams.loc[(unit, polarity)]
            assert found["ngram_id"].to_list() == wanted
            assert found["response"].to_list() == values[wanted, unit].tolist()
            assert found["rank"].to_list() == list(range(KEPT))
            assert found["text"].to_list() == [f"t{row}" for row in wanted]
            assert found["count"].to_list() == [N - row for row in wanted]


@pytest.mark.parametrize("kind", ["random", "tied", "far"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rows_are_the_same_however_the_list_is_cut_and_ordered(kind: str, dtype: torch.dtype) -> None:
    values = values_of(kind)
    first = merged(values, [], np.arange(N), dtype)
    for seed, cuts in enumerate(([100], [1, 2, 200], list(range(10, N, 10)))):
        assert merged(values, cuts, np.random.default_rng(seed).permutation(N), dtype) == first


def test_candidates_beyond_what_is_gathered_at_a_time_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = values_of("tied")
    first = merged(values, [], np.arange(N))
    monkeypatch.setattr("stages.sasc.responses.AT_ONCE", 1)
    assert merged(values, [50], np.arange(N)[::-1].copy()) == first


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float64, 150), (torch.float32, 100)])
def test_sums_carry_what_float64_cannot(dtype: torch.dtype, bits: int) -> None:
    values = torch.from_numpy(values_of("random")).to(dtype)
    sums = Sums(U)
    for start in range(0, N, 50):
        sums.add(values[start : start + 50])
    for unit, terms in enumerate(sums.terms()):
        for power in (1, 2):
            exact = [Fraction(value) ** power for value in values[:, unit].tolist()]
            found = sum(map(Fraction, terms[power - 1].tolist()), Fraction(0))
            assert abs(found - sum(exact)) <= sum(map(abs, exact)) * Fraction(1, 2**bits)


def test_nothing_has_no_mean() -> None:
    assert np.isnan(mean_and_sigma(0, [[0.0] * 6])).all()
    assert np.isnan(mean_and_sigma(3, [[np.inf] * 6])).all()


def test_units_that_are_not_finite_fail_by_name_and_others_do_not() -> None:
    values = values_of("random")
    values[17, 1], values[3, 1], values[0, 2], values[:, 3] = np.nan, np.inf, -np.inf, 2.5
    responses, strongest = merged(values, [10, 90], np.arange(N))
    rows = responses.filter(pa.compute.equal(responses["polarity"], "+")).to_pandas()
    assert rows["status"].to_list() == ["ok", "failed", "failed", "dead", "ok"]
    assert rows["n_nonfinite"].to_list() == [0, 2, 1, 0, 0]
    assert "2 of 240 responses are NaN or infinite, one of them to n-gram 3 ('t3')" in rows["error"][1]
    assert rows["mean"].isna().to_list() == [False, True, True, False, False]
    assert rows["sigma"][3] == 0
    assert set(strongest["index"].to_pylist()) == {0, 4}


def test_a_failure_on_a_part_of_the_list_is_one_of_the_whole() -> None:
    good = ModuleResponses("m", [4, 7], 3, 3)
    good.add(np.arange(5), torch.arange(10.0).reshape(5, 2))
    responses, strongest = tables_of([good.rows(), ModuleResponses("m", [4, 7], 1, 1).rows("it broke")], ["+"], 3)
    assert responses["error"].to_pylist() == ["it broke"] * 2
    assert responses["sigma"].null_count == 2
    assert strongest.num_rows == 0
    nothing, _ = tables_of([ModuleResponses("m", [4], 3, 3).rows()], ["+"], 3)
    assert nothing["status"].to_pylist() == ["failed"]
