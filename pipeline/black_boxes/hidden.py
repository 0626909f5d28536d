"""The hidden states of a layer on the tokens of texts.

Shapes: N texts, B texts of a batch, T tokens, D dimensions of the residual stream.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from pipeline.config import Subject
from pipeline.errors import UserError
from pipeline.subjects.activation_sources import ModelActivations, find_hook_points, units_in_layers
from pipeline.subjects.loading.model_loading import describe_model, load_language_model
from pipeline.subjects.text_batches import Ids, TextBatches

Values = npt.NDArray[np.float64]


class HiddenStates:
    """The residual stream after a layer of a model."""

    def __init__(self, model: str, layer: int, device: str = "auto") -> None:
        """layer: counted from 0; what it gives is read. Raises UserError: no such model, layer or device."""
        module = f"layers.{layer}.residual"
        subject = Subject(model=model, modules=[module])
        self.width = units_in_layers(subject, [module])[module].width
        loaded = load_language_model(model, device=device)
        base_model = loaded.model.base_model
        self._source = ModelActivations(base_model, find_hook_points(base_model, [module], subject))
        longest = describe_model(model, False).context_length
        self._batches = TextBatches(loaded.tokenizer, "auto", longest, loaded.device.type)

    def each(self, texts: Sequence[str]) -> Iterator[tuple[Ids, torch.Tensor, torch.Tensor]]:
        """Places of M of the texts, their (M, T, D) float32 states, and (M, T) which tokens are text."""
        for batch in self._batches.batches(texts):
            taken: list[torch.Tensor] = []

            def receive(_: str, states: torch.Tensor, taken: list[torch.Tensor] = taken) -> None:
                taken.append(states.float().clone())

            self._source.run(batch.tokens, receive)
            [states], count = taken, len(batch.places)
            yield batch.places, states[:count], torch.from_numpy(batch.counted).to(states.device)[:count]


def on_texts(
    states: HiddenStates, units: int, respond: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> Callable[[list[str]], Values]:
    """A function of texts from one of hidden states; NaN for texts without a token.

    Args:
        respond: from (M, T, D) states and (M, T) which tokens are text to (M, U) responses.
    """

    def values(texts: list[str]) -> Values:
        found = np.full((len(texts), units), np.nan)
        for places, hidden, counted in states.each(texts):
            found[places] = respond(hidden, counted).cpu().double().numpy()
        return found

    return values


def refuse_other(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raises UserError where an argument is not one of those allowed."""
    if value not in allowed:
        raise UserError(f"{name} = {value!r}; allowed: {', '.join(allowed)}")
