"""The run of the scale benchmark is a real one on which every operation works, and its exponents are those of what grows."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.commands.verify import verify_run
from stages import STAGES
from tests.benchmarks.bench_scale import OPERATIONS as ORDER
from tests.benchmarks.bench_scale import exponent
from tests.benchmarks.scale.made_up_run import made_up_stages, open_config
from tests.benchmarks.scale.operations import OPERATIONS


def test_exponents_are_those_of_powers() -> None:
    sizes = [10, 1000, 10_000, 100_000]
    for power in (0.0, 1.0, 2.0):
        assert exponent(sizes, [7 * float(size) ** power for size in sizes]) == pytest.approx(power, abs=1e-9)
    assert np.isnan(exponent([10], [3.0]))


@pytest.mark.slow
def test_every_operation_works_on_a_small_run_which_is_a_real_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = open_config(tmp_path, 300, 4096)
    stages = made_up_stages(config)
    figures = {name: OPERATIONS[name](config, stages) for name in ORDER}
    assert figures["unit"]["median_ms"] > 0
    assert figures["verify"]["rows"] > 4096 + 300 * 20
    assert verify_run(config.root, STAGES, config), capsys.readouterr().out
