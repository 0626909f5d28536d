"""Units of the model as functions of texts: each text is run through the model, and its tokens' activations are pooled.

Shapes: N texts, B texts of a batch, U units of a module.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from pipeline.config import RunConfig
from pipeline.subjects.activations import Activations, ActivationSource, ModuleUnits, SparseActivations
from pipeline.subjects.facts import describe_model
from pipeline.subjects.load import load_language_model
from pipeline.subjects.model_activations import ModelActivations
from pipeline.subjects.pooling import Pool, pooled
from pipeline.subjects.sites import find_sites
from pipeline.subjects.text_batches import Ids, TextBatch, TextBatches
from pipeline.subjects.text_function import TextFunction, Values
from stages.settings import Sasc


class ModelTexts:
    """Some modules of a model as functions of texts, all of them in one forward pass."""

    def __init__(self, source: ActivationSource, batches: TextBatches, pool: Pool) -> None:
        self.modules: Mapping[str, ModuleUnits] = source.modules
        self._source, self._batches, self._pool = source, batches, pool

    def each(self, texts: Sequence[str]) -> Iterator[tuple[Ids, dict[str, torch.Tensor]]]:
        """The places of some of the texts and their (B, U) responses by module, by rising length of the texts.

        Texts without a token do not occur. A response does not depend on the texts beside it.
        """
        for batch in self._batches.batches(texts):
            yield batch.places, self._responses(batch)

    def _responses(self, batch: TextBatch) -> dict[str, torch.Tensor]:
        """(M, U) responses to the texts of a batch, by module."""
        counted, found = torch.from_numpy(batch.counted), {}

        def receive(module: str, activations: Activations) -> None:
            tensor = activations.values if isinstance(activations, SparseActivations) else activations
            found[module] = pooled(activations, counted.to(tensor.device), self._pool)[: len(batch.places)]

        self._source.run(batch.tokens, receive)
        return found

    def function(self, module: str) -> TextFunction:
        """One of the modules; asking it runs the others too."""
        return _OneModule(self, module)


class _OneModule:
    """A module of the model as a TextFunction."""

    def __init__(self, texts: ModelTexts, module: str) -> None:
        self.units = texts.modules[module].width
        self._texts, self._module = texts, module

    def values(self, texts: Sequence[str]) -> Values:
        distinct = list(dict.fromkeys(texts))
        found = np.full((len(distinct), self.units), np.nan)
        for places, responses in self._texts.each(distinct):
            found[places] = responses[self._module].cpu().numpy()
        number = {text: place for place, text in enumerate(distinct)}
        return found[[number[text] for text in texts]]


def open_model_texts(config: RunConfig, modules: Sequence[str]) -> ModelTexts:
    """Modules of the model that a run file names; the model is loaded once within a process.

    Raises:
        UserError: the model, its device or one of the modules is not there.
    """
    subject = config.subject
    loaded = load_language_model(
        subject.model, subject.dtype, subject.device, subject.trust_remote_code, subject.device_map
    )
    base_model = loaded.model.base_model
    source = ModelActivations(base_model, find_sites(base_model, modules, subject))
    longest = describe_model(subject.model, subject.trust_remote_code).context_length
    batches = TextBatches(loaded.tokenizer, config.corpus.bos, longest, loaded.device.type)
    return ModelTexts(source, batches, config[Sasc].pool)
