"""The benchmark of recording on a GPU ends well on any machine."""

import json

import pytest
import torch

from tests.benchmarks.bench_record_gpu import main


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_it_says_that_there_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out == "skipped: no GPU\n"


def test_a_tiny_model_is_recorded_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    main(
        [
            "--size",
            "tiny",
            "--device",
            "cpu",
            "--backend",
            "torch",
            "--batch-size",
            "4",
            "--batches",
            "8",
            "--tokens",
            "8",
        ]
    )
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["total_ratio"] > 0
    assert found["tokens_per_second"] > 0
