"""Copies of a model without what it has learnt (`subject.weights`), to see what is found in units that mean nothing.

`random` is the architecture as its own code initialises it. `shuffled` has the entries of each weight tensor in another order, those of
embeddings, norms and biases too: each tensor keeps its values and so their scale, as the models that Heap et al. 2025 call re-randomised
with their embeddings keep mean and variance, and nothing else of what was learnt. Files of models are never written.
"""

import zlib
from typing import Any

import numpy as np
import torch

from pipeline.errors import UserError


def initialised(kind: Any, config: Any, dtype: torch.dtype, seed: int, trust_remote_code: bool) -> Any:
    """A model as its own code initialises it, on the CPU in float32, and then in `dtype`.

    Args:
        kind: what loads it, as of `model_class`.
        config: its transformers configuration.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code).to(dtype)


def shuffle(model: Any, seed: int) -> None:
    """Put the entries of each parameter into an order drawn by the seed and by its name; tied ones stay tied.

    Raises:
        UserError: the weights are quantised, so that their entries do not stand alone.
    """
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            raise UserError(
                f'subject.weights = "shuffled", but {name} is quantised ({parameter.dtype}); give a model with floating-point weights'
            )
        order = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(parameter.numel())
        places = torch.from_numpy(order).to(parameter.device)
        parameter.data = parameter.data.flatten()[places].view_as(parameter)
