"""Kernels are compiled once for each kind of arguments, and launched every time."""

from typing import Any

import pytest

from stages.record.triton_launch import Launcher


class Compiled:
    """Stands in for a kernel as triton gives it back."""

    def __init__(self, launched: list[Any]) -> None:
        self.launched = launched

    def __getitem__(self, grid: tuple[int, int, int]) -> Any:
        return lambda *arguments: self.launched.append((grid, arguments))


class Kernel:
    """Stands in for a kernel that is still to be compiled, or for one that is interpreted."""

    def __init__(self, compiles: bool) -> None:
        self.compiles = compiles
        self.looked_at: list[Any] = []
        self.launched: list[Any] = []

    def __getitem__(self, grid: tuple[int, int]) -> Any:
        def run(*arguments: Any, **options: Any) -> Compiled | None:
            self.looked_at.append((grid, arguments, options))
            return Compiled(self.launched) if self.compiles else None

        return run


@pytest.mark.parametrize("compiles", [True, False])
def test_a_kernel_is_looked_at_once_for_each_kind_of_arguments(compiles: bool) -> None:
    launch, kernels = Launcher(), [Kernel(compiles), Kernel(compiles)]
    for number, kind in enumerate(("a", "a", "b", "a")):
        for kernel in kernels:
            launch(kernel, (number, 7), kind, number, "x", num_warps=1)
    for kernel in kernels:
        first, others = [0, 2], [1, 3]
        looked_at = first if compiles else sorted(first + others)
        assert kernel.looked_at == [((number, 7), (number, "x"), {"num_warps": 1}) for number in looked_at]
        assert kernel.launched == [((number, 7, 1), (number, "x")) for number in (others if compiles else [])]
