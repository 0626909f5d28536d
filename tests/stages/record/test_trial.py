"""The kernels of triton are used where they find what torch finds."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.record import torch_sums, trial
from stages.record.numba_sums import NumbaSums
from stages.record.recorder import backend_for
from stages.record.sums import UnitSums
from stages.record.torch_sums import TorchSums
from tests.stages.record.backends import GPU, KERNELS

CPU = torch.device("cpu")


def numba_sums(*arguments: object) -> NumbaSums:
    return NumbaSums(*arguments[:-1])  # type: ignore[arg-type]


def test_the_trial_finds_what_another_way_of_computing_finds() -> None:
    by_torch = dict(trial.numbers(trial.sums_of(TorchSums, CPU)))
    by_numba = dict(trial.numbers(trial.sums_of(numba_sums, CPU)))  # type: ignore[arg-type]
    assert list(by_torch) == list(by_numba)
    for name, values in by_torch.items():
        np.testing.assert_allclose(values, by_numba[name], rtol=trial.ROUNDING, err_msg=name)
    assert by_torch["n_nonfinite"].sum() > 0


def test_a_difference_anywhere_is_found(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    right = trial.sums_of(TorchSums, CPU)
    wrong = replace(right, above=right.above + (np.arange(trial.UNITS) == 7))
    assert answer(monkeypatch, right)
    assert not answer(monkeypatch, wrong)
    assert "triton finds other above" in caplog.text


def answer(monkeypatch: pytest.MonkeyPatch, by_triton: UnitSums) -> bool:
    """What the trial says if triton's sums are these."""
    sums_of = trial.sums_of

    def made_up(kind: type, device: torch.device) -> UnitSums:
        return sums_of(kind, device) if kind is torch_sums.TorchSums else by_triton

    stand_in = type("Module", (), {"TritonSums": object})
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "stages.record.triton_sums", stand_in)
        patch.setattr(trial, "sums_of", made_up)
        trial.triton_agrees.cache_clear()
        found = trial.triton_agrees(CPU)
    trial.triton_agrees.cache_clear()
    return found


def test_kernels_that_fail_are_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "stages.record.triton_sums", None)
    trial.triton_agrees.cache_clear()
    assert not trial.triton_agrees(CPU)
    assert "recording by torch, as triton fails" in caplog.text
    trial.triton_agrees.cache_clear()


def test_a_cpu_is_for_numba() -> None:
    assert backend_for(CPU) == "numba"


@pytest.mark.skipif(not KERNELS, reason="no GPU with triton, nor its interpreter")
def test_the_kernels_agree_here() -> None:
    assert trial.triton_agrees(torch.device("cuda" if GPU else "cpu"))
