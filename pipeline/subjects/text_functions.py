"""Any module as a function of texts: what SASC explains (Singh et al. 2023)."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Literal, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.subjects.activation_sources import ModelActivations, find_hook_points
from pipeline.subjects.activations import Activations, ActivationSource, ModuleUnits, SparseActivations
from pipeline.subjects.loading.model_loading import describe_model, load_subject
from pipeline.subjects.module_kinds import Kind, kind_of, modules_of
from pipeline.subjects.text_batches import Ids, TextBatch, TextBatches

Pool = Literal["max", "min", "mean", "last"]
Values = npt.NDArray[np.float64]
DENSE = 2**26
"""Sparse activations that are held with their zeros at a time: 256 MiB."""


class TextFunction(Protocol):
    """A function from texts to the responses of U units."""

    @property
    def units(self) -> int:
        """U, all units of the module."""
        ...

    def values(self, texts: Sequence[str]) -> Values:
        """(N, U) responses to N texts; a text's row does not depend on the texts beside it. Raises UserError: the module fails.

        NaN or infinite where the module says so, and NaN for a text without a token.
        """
        ...


class TextKind(Protocol):
    """What the file of a kind of module outside of the layers offers, where it can be asked about any text."""

    def text_function(self, config: RunConfig, module: str) -> TextFunction:
        """The module as a function of texts; raises UserError where it cannot be used."""
        ...

    def check_text_function(self, config: RunConfig, module: str) -> None:
        """Raises UserError where the function is not there; it is not called."""
        ...


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

        def receive(module: str, given: Activations) -> None:
            device = (given.values if isinstance(given, SparseActivations) else given).device
            found[module] = pooled(given, counted.to(device), self._pool)[: len(batch.places)]

        self._source.run(batch.tokens, receive)
        return found


class OneModule:
    """The only module of a ModelTexts as a TextFunction."""

    def __init__(self, texts: ModelTexts) -> None:
        [(self._module, units)] = texts.modules.items()
        self.units, self._texts = units.width, texts

    def values(self, texts: Sequence[str]) -> Values:
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        found = np.full((len(places), self.units), np.nan)
        for rows, responses in self._texts.each(list(places)):
            found[rows] = responses[self._module].cpu().numpy()
        return found[[places[text] for text in texts]]


def open_model_texts(config: RunConfig, modules: Sequence[str], pool: Pool) -> ModelTexts:
    """Modules of the model that a run file names; the model is loaded once within a process.

    Args:
        pool: how the activations on the tokens of a text become one number.

    Raises:
        UserError: the model, its device or one of the modules is not there.
    """
    subject = config.subject
    loaded = load_subject(subject)
    base_model = loaded.model.base_model
    source = ModelActivations(base_model, find_hook_points(base_model, modules, subject))
    longest = describe_model(subject.model, subject.trust_remote_code).context_length
    batches = TextBatches(loaded.tokenizer, config.corpus.bos, longest, loaded.device.type)
    return ModelTexts(source, batches, pool)


def open_text_function(config: RunConfig, module: str, pool: Pool) -> TextFunction:
    """The function of texts that a module of a run file is.

    Raises:
        UserError: there is no such module, it fails on a few short texts, or it can be asked about its own sequences only.
    """
    kind = kind_of(module)
    if kind.in_layers:
        return OneModule(open_model_texts(config, [module], pool))
    return _file(kind, module).text_function(config, module)


def check_text_functions(config: RunConfig) -> None:
    """Raises UserError where a module of a run file cannot be asked about texts; functions are found and not called."""
    for module in modules_of(config):
        kind = kind_of(module)
        if not kind.in_layers:
            _file(kind, module).check_text_function(config, module)


def _file(kind: Kind, module: str) -> TextKind:
    if not kind.any_text:
        raise UserError(
            f"{module} holds activations on its own sequences and cannot be asked about other texts; leave it out of "
            "subject.modules, or leave the method that asks about texts out of run.methods"
        )
    return cast(TextKind, import_module(kind.file))


def pooled(activations: Activations, counted: torch.Tensor, pool: Pool) -> torch.Tensor:
    """(B, U) float32 largest, smallest, mean or last activation over the counted tokens; NaN where one of those is.

    Args:
        activations: (B, T, U), or SparseActivations, of which some units at a time are filled up with zeros.
        counted: (B, T) bool on the same device; each text has one such token at least.
    """
    if isinstance(activations, SparseActivations):
        texts, tokens, width = activations.shape
        units = torch.split(torch.arange(width, device=counted.device), max(1, DENSE // (texts * tokens)))
        return torch.cat([pooled(activations.of(some), counted, pool) for some in units], dim=1)
    if pool == "last":
        positions = torch.arange(counted.shape[1], device=counted.device)
        places = torch.where(counted, positions, -1).amax(dim=1)
        return activations[torch.arange(len(places), device=places.device), places].float()
    within = counted.unsqueeze(-1)  # (B, T, 1)
    if pool == "max":
        return activations.masked_fill(~within, -torch.inf).amax(dim=1).float()
    if pool == "min":
        return activations.masked_fill(~within, torch.inf).amin(dim=1).float()
    total: torch.Tensor = activations.float().masked_fill(~within, 0.0).sum(dim=1)
    return total / within.sum(dim=1)
