"""What the recorder can compute with, each a case of the tests that hold for all of them."""

import os
from importlib.util import find_spec
from typing import Any, Literal

import pytest
import torch

from stages.record.scan import Backend

Way = Literal["numba", "torch", "triton", "cuda"]
"""`torch` on the CPU; `cuda` is torch on a GPU; `triton` on a GPU, or interpreted on the CPU (slow) with TRITON_INTERPRET=1."""

SLOW = pytest.mark.slow
GPU = torch.cuda.is_available()
KERNELS = bool(find_spec("triton")) and (GPU or os.environ.get("TRITON_INTERPRET") == "1")
BACKENDS: list[Any] = [
    "numba",
    "torch",
    pytest.param("triton", marks=pytest.mark.skipif(not KERNELS, reason="no GPU with triton, nor its interpreter")),
    pytest.param("cuda", marks=pytest.mark.skipif(not GPU, reason="no GPU")),
]


def backend_of(way: Way) -> Backend:
    """The recorder's setting."""
    return "torch" if way == "cuda" else way


def device_of(way: Way) -> torch.device:
    """Where the activations lie."""
    return torch.device("cuda" if way == "cuda" or (way == "triton" and GPU) else "cpu")
