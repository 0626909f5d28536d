"""Launching kernels of triton without looking at each argument again, which takes longer than the kernel of a small batch."""

from typing import Any


class Launcher:
    """Kernels as they were compiled for arguments of some kind."""

    def __init__(self) -> None:
        self._compiled: dict[tuple[Any, ...], Any] = {}

    def __call__(self, kernel: Any, grid: tuple[int, int], kind: Any, *arguments: Any, **options: Any) -> None:
        """Launch a kernel on the current device.

        Args:
            kind: tells apart what triton compiles apart: types of tensors, whether they start at a multiple of 16 bytes, and
                all whole numbers.
            arguments: all that the kernel takes, in order.
            options: of triton, such as `num_warps`.
        """
        compiled = self._compiled.get((kernel, kind))
        if compiled is None:  # the interpreter of triton compiles nothing
            self._compiled[kernel, kind] = kernel[grid](*arguments, **options)
        else:
            compiled[(*grid, 1)](*arguments)
