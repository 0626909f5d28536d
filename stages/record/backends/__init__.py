"""The backends, which compute the running state of a module.

`numba` works on a CPU, `triton` and `torch` on a GPU, and `sparse`, on a CPU, on activations that are mostly zero.
"""

from importlib.util import find_spec
from typing import Any, Literal

from stages.record.backends.contract import Accumulator

Backend = Literal["auto", "numba", "torch", "triton"]


def open_sums(backend: Backend, device: Any, *shape: Any, sparse: bool = False) -> Accumulator:
    """The empty state of a module.

    Args:
        backend: "auto" leaves the choice to `backend_for`.
        device: the torch device of its activations.
        shape: units, tokens of the longest sequence, tokens of the token table, the settings, and whether units are signed.
        sparse: whether activations come as SparseActivations.
    """
    if sparse:
        from stages.record.backends.sparse.sparse_sums import SparseSums

        return SparseSums(*shape)
    chosen = backend_for(device) if backend == "auto" else backend
    if chosen == "numba":
        from stages.record.backends.numba.numba_sums import NumbaSums

        return NumbaSums(*shape)
    if chosen == "torch":
        from stages.record.backends.torch.torch_sums import TorchSums

        return TorchSums(device, *shape)
    from stages.record.backends.triton.triton_sums import TritonSums

    return TritonSums(device, *shape)


def backend_for(device: Any) -> Backend:
    """The fastest backend for activations on a torch device that gives the right results there."""
    if device.type == "cpu":
        return "numba"
    if device.type == "cuda" and find_spec("triton"):
        from stages.record.backends.triton import triton_agrees

        return "triton" if triton_agrees(device) else "torch"
    return "torch"
