"""The benchmark of n-grams measures the stage as it is."""

import json

import pytest

from tests.benchmarks import bench_sasc


@pytest.mark.slow
def test_it_prints_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    bench_sasc.main(["--ngrams", "40", "--rounds", "1"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name in bench_sasc.MODULES:
        assert found[f"fraction_of_{name}"] > 0
        assert 0 < found[f"nulls_share_{name}"] < 1
    assert found["fraction_of_module"] == min(found[f"fraction_of_{name}"] for name in bench_sasc.MODULES)
