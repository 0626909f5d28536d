"""Any module as a function of texts: what SASC explains (Singh et al. 2023)."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.subjects.black_box import BlackBoxActivations
from pipeline.subjects.identity import BLACK_BOX, OWN, black_box

Values = npt.NDArray[np.float64]


class TextFunction(Protocol):
    """A function from texts to the responses of U units."""

    @property
    def units(self) -> int:
        """U, all units of the module."""
        ...

    def values(self, texts: Sequence[str]) -> Values:
        """(N, U) responses to N texts; a text's row does not depend on the texts beside it.

        NaN or infinite where the module says so, and NaN for a text without a token.

        Raises:
            UserError: the module fails; the message names it.
        """
        ...


AGAIN = 256
"""One in so many texts is asked again, and at least one in each call."""
FIRST = 16
"""Texts of the first call that are asked again, at least."""


class BlackBoxTexts:
    """A black box, asked for whole texts; some, spread over those of a call, are asked again beside other texts."""

    def __init__(self, source: BlackBoxActivations) -> None:
        self.units = source.box.units
        self._source = source
        self._asked = False

    def values(self, texts: Sequence[str]) -> Values:
        found = self._source.values(texts)
        step = max(1, min(AGAIN, len(texts) // FIRST if not self._asked else AGAIN))
        if texts:
            self._source.confirm(texts[::step], found[::step])
            self._asked = True
        return found


def open_text_function(config: RunConfig, module: str) -> TextFunction:
    """The function of texts that a module of a run file is.

    Raises:
        UserError: there is no such module, it fails on a few short texts, or it is a folder of activations, which says
            nothing of other texts than its own.
    """
    if module.startswith(OWN):
        raise UserError(
            f"{module} holds activations on its own sequences and cannot be asked about other texts, which SASC needs; "
            "leave it out of subject.modules, or sasc out of run.methods"
        )
    if module.startswith(BLACK_BOX):
        return BlackBoxTexts(BlackBoxActivations(module, black_box(config, module)))
    from pipeline.subjects.model_texts import open_model_texts

    return open_model_texts(config, [module]).function(module)
