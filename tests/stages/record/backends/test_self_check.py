"""The kernels of triton are used where they find what torch finds."""

import sys
from typing import Any

import numpy as np
import pytest
import torch

from stages.record.backends import triton_check
from stages.record.backends.numba.numba_sums import NumbaSums
from stages.record.backends.torch_sums import TorchSums
from stages.record.scan import backend_for
from tests.stages.record.ways import GPU, KERNELS

CPU = torch.device("cpu")


def numba_sums(*arguments: object) -> NumbaSums:
    return NumbaSums(*arguments[1:])  # type: ignore[arg-type]


def test_what_is_made_up_gives_the_same_by_another_backend() -> None:
    by_torch = triton_check.made_up_sums(TorchSums, CPU)
    by_numba = triton_check.made_up_sums(numba_sums, CPU)  # type: ignore[arg-type]
    assert list(by_torch) == list(by_numba)
    for name, values in by_torch.items():
        np.testing.assert_allclose(values, by_numba[name], rtol=triton_check.ROUNDING, err_msg=name)
    assert by_torch["n_nonfinite"].sum() > 0


def test_a_difference_anywhere_is_found(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    right = triton_check.made_up_sums(TorchSums, CPU)
    wrong = right | {"above": right["above"] + (np.arange(triton_check.UNITS) == 7)}
    assert answer(monkeypatch, right)
    assert not answer(monkeypatch, wrong)
    assert "triton finds other above" in caplog.text


def answer(monkeypatch: pytest.MonkeyPatch, by_triton: dict[str, Any]) -> bool:
    """What the self-check says if triton's sums are these."""
    made_up_sums = triton_check.made_up_sums

    def made_up(kind: type, device: torch.device) -> dict[str, Any]:
        return made_up_sums(kind, device) if kind is TorchSums else by_triton

    stand_in = type("Module", (), {"TritonSums": object})
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "stages.record.backends.triton_sums", stand_in)
        patch.setattr(triton_check, "made_up_sums", made_up)
        triton_check.triton_agrees.cache_clear()
        found = triton_check.triton_agrees(CPU)
    triton_check.triton_agrees.cache_clear()
    return found


def test_kernels_that_fail_are_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "stages.record.backends.triton_sums", None)
    triton_check.triton_agrees.cache_clear()
    assert not triton_check.triton_agrees(CPU)
    assert "recording by torch, as triton fails" in caplog.text
    triton_check.triton_agrees.cache_clear()


def test_a_cpu_is_for_numba() -> None:
    assert backend_for(CPU) == "numba"


@pytest.mark.skipif(not KERNELS, reason="no GPU with triton, nor its interpreter")
def test_the_kernels_agree_here() -> None:
    assert triton_check.triton_agrees(torch.device("cuda" if GPU else "cpu"))
