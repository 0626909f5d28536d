"""MLP neurons: the activations at the input of the projection back to the residual stream.

Shapes: U neurons, D dimensions of the residual stream.
"""

import functools

from torch import nn

from pipeline.subjects.activation_sources import HookPoint, UnitVectors
from pipeline.subjects.architecture import Layer, descend, inputs, matrix, norm_scale

NEVER_NEGATIVE = {"ReLU", "ReLU6", "ReLUSquaredActivation", "Sigmoid"}
"""Classes of activation functions."""


def hook_point(layer: Layer, _: None = None) -> HookPoint:
    """The neurons of a layer's MLP. Raises UserError: the layer has no MLP with neurons of its own."""
    down = layer.needed("down_proj")
    return HookPoint(
        layer.module,
        down,
        inputs(down),
        signed=_signed(layer, down),
        vectors=functools.partial(neuron_vectors, layer, down),
        norm=layer.part("mlp_norm"),
    )


def neuron_vectors(layer: Layer, down: nn.Module) -> UnitVectors:
    """What the neurons of a layer read and write, with the weights of the norms in front of and behind the MLP.

    A neuron of a gated MLP reads what its gate reads. In families that normalise what the MLP writes (Gemma 2 and 3, OLMo 2),
    the length of `writes` is right up to one factor for each token.
    """
    writes = matrix(down)  # (D, U)
    writes = writes * norm_scale(layer.part("mlp_post_norm"), len(writes))[:, None]
    up = _up_projection(layer)
    if up is None:
        return UnitVectors(None, writes.T)
    reads = matrix(up)[: inputs(down)]  # (U, D); where gate and up are one matrix, the gate comes first
    return UnitVectors(reads * norm_scale(layer.part("mlp_norm"), reads.shape[1]), writes.T)


def _up_projection(layer: Layer) -> nn.Module | None:
    """The projection to the neurons, or to their gates; None where the run file says where the neurons are."""
    return None if "down_proj" in layer.paths else layer.part("up_proj")


def _signed(layer: Layer, down: nn.Module) -> bool:
    """Whether a neuron can be negative: not behind a ReLU without a gate."""
    up = _up_projection(layer)
    gated = up is None or up is descend(layer.block, "mlp.gate_proj") or _outputs(up) == 2 * inputs(down)
    return gated or type(layer.part("activation")).__name__ not in NEVER_NEGATIVE


def _outputs(projection: nn.Module) -> int:
    return projection.out_features if isinstance(projection, nn.Linear) else int(projection.nf)  # type: ignore[arg-type]
