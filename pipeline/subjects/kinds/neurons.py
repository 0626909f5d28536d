"""MLP neurons: the activations at the input of the projection back to the residual stream.

Shapes: U neurons, D dimensions of the residual stream.
"""

import functools

from torch import nn

from pipeline.subjects.architecture import Paths, descend, inputs, matrix, needed, norm_scale, part
from pipeline.subjects.hook_points import HookPoint, UnitVectors

NEVER_NEGATIVE = {"ReLU", "ReLU6", "ReLUSquaredActivation", "Sigmoid"}
"""Classes of activation functions."""


def neuron_hook_point(name: str, block: nn.Module, paths: Paths | None = None) -> HookPoint:
    """The neurons of a layer's MLP.

    Raises:
        UserError: the layer has no MLP with neurons of its own.
    """
    down = needed(block, "down_proj", name, paths)
    vectors = functools.partial(neuron_vectors, block, down, paths)
    return HookPoint(name, down, inputs(down), signed=_signed(block, down, paths), vectors=vectors)


def neuron_vectors(block: nn.Module, down: nn.Module, paths: Paths | None = None) -> UnitVectors:
    """What the neurons of a layer read and write, with the weights of the norms in front of and behind the MLP.

    A neuron of a gated MLP reads what its gate reads. In families that normalise what the MLP writes (Gemma 2 and 3, OLMo 2),
    the length of `writes` is right up to one factor for each token.
    """
    writes = matrix(down)  # (D, U)
    writes = writes * norm_scale(part(block, "mlp_post_norm", paths), len(writes))[:, None]
    up = _up_projection(block, paths)
    if up is None:
        return UnitVectors(None, writes.T)
    reads = matrix(up)[: inputs(down)]  # (U, D); where gate and up are one matrix, the gate comes first
    return UnitVectors(reads * norm_scale(part(block, "mlp_norm", paths), reads.shape[1]), writes.T)


def _up_projection(block: nn.Module, paths: Paths | None) -> nn.Module | None:
    """The projection to the neurons, or to their gates; None where the run file says where the neurons are."""
    if paths and "down_proj" in paths:
        return None
    return part(block, "up_proj", paths)


def _signed(block: nn.Module, down: nn.Module, paths: Paths | None) -> bool:
    """Whether a neuron can be negative: not behind a ReLU without a gate."""
    up = _up_projection(block, paths)
    gated = up is None or up is descend(block, "mlp.gate_proj") or _outputs(up) == 2 * inputs(down)
    return gated or type(part(block, "activation", paths)).__name__ not in NEVER_NEGATIVE


def _outputs(projection: nn.Module) -> int:
    return projection.out_features if isinstance(projection, nn.Linear) else int(projection.nf)  # type: ignore[arg-type]
