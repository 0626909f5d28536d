"""How much each token of a sequence matters to the activation of a unit at one position.

Occlusion asks by trying: each token in turn is replaced by a neutral one and the activation measured again; it works for any
source of activations. Integrated gradients (Sundararajan et al. 2017, Axiomatic attribution for deep networks, equation 1)
follow the gradient from a baseline, the neutral token at every position, to the sequence; they need a model.

Shapes: W wanted activations, T tokens, D dimensions of an embedding, N variants of the sequence or points on the way to it.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import UserError
from pipeline.subjects.activation_sources import HookPoint, LastHookPointReached, activations_on, hooked, input_device
from pipeline.subjects.activations import ActivationSource, of_units

STEPS = 32
"""Points on the way from the baseline to the sequence at which gradients are taken."""
AT_A_TIME = 4
"""Points whose gradients are taken in one pass, which holds what every layer has computed."""
NEUTRAL = (" ", "_", ".")
"""Texts that stand for no particular word; the first one that is a single token replaces others."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Wanted:
    """An activation in a sequence."""

    position: int
    unit: int


def neutral_token(tokenizer: Any) -> int:
    """The token that others are replaced by: the mask token where the model knows one, else one of NEUTRAL.

    A special token would do more than to take a word away: many models read the end of a document as the end of all that
    went before.
    """
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    encoded = (tokenizer.encode(text, add_special_tokens=False) for text in NEUTRAL)
    found = next((ids[0] for ids in encoded if len(ids) == 1), None)
    others = (found, tokenizer.unk_token_id, tokenizer.eos_token_id, 0)
    return next(int(token) for token in others if token is not None)


def occlusion(
    source: ActivationSource, module: str, token_ids: Sequence[int], one: Wanted, neutral: int, batch: int
) -> Floats:
    """What each token adds: the activation less the one with that token replaced by a neutral one.

    What comes after the wanted position is replaced all at once first; where that changes nothing, as in a causal model, every
    token there adds 0, and the others are tried without them.

    Args:
        neutral: token id.
        batch: sequences run at a time.

    Returns:
        (T,) in activation units; NaN where an activation was not finite.
    """

    def activations(variants: Sequence[Sequence[int]], size: int) -> Floats:
        """(N,) the wanted activation in each variant of the sequence."""
        given = activations_on(source, module, [one.unit], enumerate(variants), size)
        return np.asarray([given[number][one.position, 0] for number in range(len(variants))])

    original, reach = list(token_ids), one.position + 1
    whole, without_end = activations([original, original[:reach] + [neutral] * (len(original) - reach)], 2)
    if not np.isclose(whole, without_end, rtol=1e-4, atol=1e-6):
        reach = len(original)
    variants = [[*original[:place], neutral, *original[place + 1 : reach]] for place in range(reach)]
    found = np.zeros(len(original), np.float32)
    found[:reach] = whole - activations(variants, batch)
    return found


def _pick(activations: Any, one: Wanted) -> torch.Tensor:
    """(N,) one activation in each sequence of a batch, differentiable where the activations are."""
    return of_units(activations, [one.unit])[:, one.position, 0]


def integrated_gradients(
    base_model: Any,
    hook_point: HookPoint,
    token_ids: Sequence[int],
    wanted: Sequence[Wanted],
    neutral: int,
    steps: int = STEPS,
) -> Floats:
    """What each token adds, as the gradient along the way from the baseline to the sequence.

    The tokens of a sequence together add the difference of its activation to the baseline's, up to the error of the sum
    over `steps` points (Gauss and Legendre's).

    Returns:
        (W, T) in activation units.

    Raises:
        UserError: the activations of this kind of unit have no gradient.
    """
    ids = torch.tensor([list(token_ids)], device=input_device(base_model))
    embed = base_model.get_input_embeddings()
    with torch.no_grad():
        there = embed(ids)  # (1, T, D)
        baseline = embed(torch.full_like(ids, neutral))
    way = there - baseline
    points, weights = np.polynomial.legendre.leggauss(steps)
    found = torch.zeros(len(wanted), ids.shape[1], device=way.device)
    for start in range(0, steps, AT_A_TIME):
        shares, weight = (
            torch.tensor(values[start : start + AT_A_TIME], dtype=way.dtype, device=way.device).view(-1, 1, 1)
            for values in ((points + 1) / 2, weights / 2)
        )
        inputs = (baseline + shares * way).requires_grad_()  # (N, T, D)
        for number, gradient in enumerate(_gradients(base_model, hook_point, inputs, wanted)):
            found[number] += ((weight * gradient).sum(0) * way[0]).sum(-1)
    return found.cpu().numpy()


def _gradients(
    base_model: Any, hook_point: HookPoint, inputs: torch.Tensor, wanted: Sequence[Wanted]
) -> Iterator[torch.Tensor]:
    """(N, T, D) gradient of each wanted activation by the embeddings."""
    taken: list[Any] = []
    with (
        torch.enable_grad(),
        hooked({hook_point.name: hook_point}, lambda _, found: taken.append(found)),
        suppress(LastHookPointReached),
    ):
        base_model(inputs_embeds=inputs, use_cache=False)
    for one in wanted:
        values = _pick(taken[0], one)
        if not values.requires_grad:
            raise UserError(
                f"the activations of {hook_point.name} have no gradient by the tokens' embeddings; "
                'set record.attribution = "occlusion"'
            )
        [gradient] = torch.autograd.grad(values.sum(), inputs, retain_graph=True)
        yield gradient
