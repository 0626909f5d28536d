"""Double precision on devices that may not have it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WITHOUT = {"mps"}
"""Types of devices that have no float64."""


def with_float64(values: "torch.Tensor") -> "torch.Tensor":
    """The values on their own device, or on the CPU where that has no float64."""
    return values.cpu() if values.device.type in WITHOUT else values
