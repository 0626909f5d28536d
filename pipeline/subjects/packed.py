"""BERT over texts of any lengths side by side: passes of the same number of tokens, without padding.

Shapes: P tokens of a pass, B texts of the same length T in it, H heads, D numbers of a state.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

Run = tuple[int, int, int]
"""Where texts of the same length begin in a pass, how many there are, and their length."""


def can_pack(model: Any) -> bool:
    """Whether a model is a BERT whose passes are worth filling: on a CPU, where time goes by the tokens."""
    return type(model).__name__ == "BertModel" and model.device.type == "cpu" and not model.config.is_decoder


def mean_states(model: Any, texts: Sequence[Sequence[int]], tokens: int) -> torch.Tensor:
    """(N, D) means of the last hidden states over the tokens of each of N texts of token ids.

    Args:
        tokens: P, as many as the longest text has or more. Every product of matrices has as many rows, so that a text's mean
            does not depend on the texts beside it, down to the last bit.
    """
    found = torch.empty(len(texts), model.config.hidden_size)
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for part in _passes([len(texts[place]) for place in order], tokens):
        members = order[part]
        ids, positions = np.zeros(tokens, np.int64), np.zeros(tokens, np.int64)
        lengths = [len(texts[place]) for place in members]
        ids[: sum(lengths)] = np.concatenate([texts[place] for place in members])
        positions[: sum(lengths)] = np.concatenate([np.arange(length) for length in lengths])
        runs = list(_runs(lengths))
        with torch.inference_mode():
            states = _states(model, torch.from_numpy(ids), torch.from_numpy(positions), runs)
            means = [_of_run(states, run).mean(dim=1) for run in runs]  # (P, D) -> (B, T, D) -> (B, D)
        found[members] = torch.cat(means)
    return found


def _passes(lengths: Sequence[int], tokens: int) -> Iterator[slice]:
    """Which texts, in order, fit into each pass."""
    start, room = 0, tokens
    for place, length in enumerate(lengths):
        if length > room:
            yield slice(start, place)
            start, room = place, tokens
        room -= length
    if lengths:
        yield slice(start, len(lengths))


def _runs(lengths: Sequence[int]) -> Iterator[Run]:
    start = 0
    for length, count in zip(*np.unique(lengths, return_counts=True), strict=True):
        yield start, int(count), int(length)
        start += int(count * length)


def _of_run(states: torch.Tensor, run: Run) -> torch.Tensor:
    """(P, ...) -> (B, T, ...)"""
    start, count, length = run
    return states[start : start + count * length].view(count, length, *states.shape[1:])


def _states(model: Any, ids: torch.Tensor, positions: torch.Tensor, runs: Sequence[Run]) -> torch.Tensor:
    """(P, D) last hidden states; those behind the last run mean nothing."""
    states = model.embeddings(input_ids=ids[None], position_ids=positions[None])[0]
    for layer in model.encoder.layer:
        attended = layer.attention.output(_attended(layer.attention.self, states, runs), states)
        states = layer.output(layer.intermediate(attended), attended)
    return states


def _attended(attention: Any, states: torch.Tensor, runs: Sequence[Run]) -> torch.Tensor:
    """(P, D) what each token takes from those of its own text."""
    shape = len(states), attention.num_attention_heads, attention.attention_head_size
    parts = [linear(states).view(shape) for linear in (attention.query, attention.key, attention.value)]  # (P, H, d)
    found = torch.zeros_like(states)
    for run in runs:
        query, key, value = (_of_run(part, run).transpose(1, 2) for part in parts)  # (B, H, T, d)
        context = scaled_dot_product_attention(query, key, value, scale=attention.scaling)
        _of_run(found, run).copy_(context.transpose(1, 2).flatten(2))
    return found
