"""Attention heads: the activation of a head at a token is the norm of what it writes to the residual stream there.

Shapes: B sequences, T tokens, H heads, d dimensions of a head, D of the residual stream.
"""

from typing import Any

import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.subjects.architecture import Paths, inputs, matrix, needed
from pipeline.subjects.float64 import with_float64
from pipeline.subjects.site import Site


class HeadWrites:
    """From the heads' outputs z (B, T, H * d) to || W_O[h] z_h || (B, T, H).

    The block W_O[h] (D, d) is written as Q R with Q of orthonormal columns, so that the norm is || R z_h ||: d * d products
    instead of D * d, as with the Gram matrix R^T R, and without its loss of half the digits. The projection's bias belongs to no
    head and is left out; so is the norm that Gemma 2 and 3 put behind the sum of the heads.
    """

    def __init__(self, projection: nn.Module, heads: int) -> None:
        self.projection = projection
        self.heads = heads
        self._triangles: torch.Tensor | None = None

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """(B, T, H * d) to (B, T, H) float32."""
        if self._triangles is None or self._triangles.device != z.device:
            self._triangles = self.triangles().to(z.device)
        split = z.float().reshape(-1, self.heads, z.shape[-1] // self.heads)  # (B * T, H, d)
        written = torch.bmm(split.transpose(0, 1), self._triangles)  # (H, B * T, min(d, D))
        return torch.linalg.vector_norm(written, dim=-1).T.reshape(*z.shape[:-1], self.heads)

    def triangles(self) -> torch.Tensor:
        """(H, d, min(d, D)) the R of each head, transposed."""
        weight = with_float64(matrix(self.projection)).double()  # (D, H * d)
        blocks = weight.reshape(len(weight), self.heads, -1).transpose(0, 1)  # (H, D, d)
        return torch.linalg.qr(blocks, mode="r").R.float().mT.contiguous()


def head_site(name: str, block: nn.Module, config: Any, paths: Paths | None = None) -> Site:
    """The heads of a layer's attention.

    Args:
        config: the configuration of the model, which says how many heads there are.

    Raises:
        UserError: the layer has no attention, or its width is not a multiple of the number of heads.
    """
    projection = needed(block, "o_proj", name, paths)
    heads = getattr(config.get_text_config(), "num_attention_heads", None)
    if not isinstance(heads, int) or inputs(projection) % heads:
        raise UserError(
            f"subject.modules: the heads of {name!r} cannot be told apart: num_attention_heads = {heads!r} does not divide the "
            f"{inputs(projection)} inputs of the projection behind them; record {name}_out, or give another subject.paths.o_proj"
        )
    return Site(name, projection, heads, read=HeadWrites(projection, heads), signed=False)
