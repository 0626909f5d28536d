"""What computes the sums of a module: numba on a CPU, triton or torch on a GPU, and triples on a CPU where most is zero."""

from importlib.util import find_spec
from typing import Any, Literal

from stages.record.backends.contract import Accumulator

Backend = Literal["auto", "numba", "torch", "triton"]


def open_sums(backend: Backend, device: Any, *shape: Any, sparse: bool = False) -> Accumulator:
    """The empty state of a module.

    Args:
        backend: "auto" is what `backend_for` says.
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
    """The fastest backend for activations on a torch device, of those that give the right results there."""
    if device.type == "cpu":
        return "numba"
    if device.type == "cuda" and find_spec("triton"):
        from stages.record.backends.triton import triton_agrees

        return "triton" if triton_agrees(device) else "torch"
    return "torch"
