"""The vectors that the neurons of an MLP read and write.

Shapes: U neurons, D dimensions of the residual stream.
"""

import torch
from torch import nn

from pipeline.subjects.sites import UnitVectors

READERS = ("gate_proj", "c_fc", "dense_h_to_4h", "fc_in", "fc1", "up_proj")
"""What brings the residual stream to the neurons, beside the projection back; of a gated MLP the gate, which lets a neuron
fire at all."""


def mlp_vectors(parent: nn.Module, down: nn.Module) -> UnitVectors:
    """The vectors of neurons.

    Args:
        parent: the module that holds both projections.
        down: the projection from the neurons back to the residual stream.
    """
    writes = _outwards(down)
    width = writes.shape[1]
    fused = getattr(parent, "gate_up_proj", None)
    if isinstance(fused, nn.Module):  # Phi-3: the gate's rows, then those of the other factor
        return UnitVectors(_outwards(fused)[:width], writes.T)
    found = (getattr(parent, name, None) for name in READERS)
    up = next((module for module in found if isinstance(module, nn.Module)), None)
    return UnitVectors(None if up is None else _outwards(up), writes.T)


def _outwards(projection: nn.Module) -> torch.Tensor:
    """The weight as (outputs, inputs): torch's Linear has it so, GPT-2's Conv1D transposed."""
    weight = projection.weight
    assert isinstance(weight, torch.Tensor)
    return weight if isinstance(projection, nn.Linear) else weight.T
