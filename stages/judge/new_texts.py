"""What a unit does on texts that are not in the corpus.

Shapes: N texts, U units of a module.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.stage import Context
from pipeline.subjects.module_kinds import kind_of
from stages.judge.text_choice import runs_subject
from stages.settings import Judge

if TYPE_CHECKING:
    from pipeline.subjects.text_functions import Pool

KEPT = 64
"""Lists of texts whose responses are kept, as explanations of other units are controls of many."""

NO_NUMBER = "the text has no token, or the module gives no number for it"
Values = npt.NDArray[np.float64]


class NewTexts:
    """The largest activations, in a polarity, of the units of a run on any texts, each of which is read alone."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._of_module = lru_cache(KEPT)(self._responses)

    def peaks(self, module: str, index: int, polarity: str, texts: Sequence[str]) -> Values:
        """(N,) the unit's largest activation on each text, NaN for a text without a token.

        Raises:
            UserError: the module cannot be asked about texts.
        """
        return self._of_module(module, polarity, tuple(texts))[:, index] if texts else np.zeros(0)

    def _responses(self, module: str, polarity: str, texts: tuple[str, ...]) -> Values:
        """(N, U) of all units of a module."""
        from pipeline.subjects.text_functions import OneModule, open_model_texts, open_text_function

        config = self._context.config
        if not kind_of(module).in_layers:
            function = self._context.latest("function", module, lambda _: open_text_function(config, module, "max"))
            return function.values(list(texts)) * (1.0 if polarity == "+" else -1.0)
        pool: Pool = "max" if polarity == "+" else "min"
        run = self._context.latest(
            "texts", f"{module} {polarity}", lambda _: OneModule(open_model_texts(config, [module], pool))
        )
        return run.values(list(texts)) * (1.0 if polarity == "+" else -1.0)


def refuse_other_subject(config: RunConfig) -> None:
    """Raises UserError where a run has no subject to run on new texts."""
    if not runs_subject(config):
        raise UserError(
            f'judge.methods names "{config[Judge].name}", which runs the subject on new texts: an imported run has none, '
            "and a null run is about other activations; leave it out"
        )
