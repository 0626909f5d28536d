"""Units of which only the answers are known: a function from texts to numbers, as the run file names it."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pipeline.config import BlackBox, RunConfig
from pipeline.errors import UserError
from pipeline.subjects.activations import ModuleUnits, Receive, TokenBatch
from pipeline.subjects.kinds.callables import TooSlow, load_function, open_function, shown, time_limit, told
from pipeline.subjects.loading.model_loading import load_tokenizer
from pipeline.subjects.module_kinds import parse_module
from pipeline.subjects.vocabulary import TokenTexts

KEPT_BYTES = 1 << 26
"""Memory for answers that are remembered."""
TEXT_BYTES = 200
"""About what a remembered text takes itself."""
BATCH_SIZE = 1024
"""Texts given to a function at a time, where neither the run file nor the function says how many."""
ASKED_TWICE = 16
"""Texts of the first batch that are asked twice."""
TOLERANCE = 1e-4
"""By how much two answers to a text may differ, as a share of the largest answer of the unit so far."""
SLOW = 2.0
"""Seconds after which progress is shown."""
AGAIN = 256
"""Of whole texts, one in so many is asked again, and at least one in each call."""
FIRST = 16
"""Texts of the first call that are asked again, at least."""
SAMPLE = (
    "a",
    " red",
    " the house",
    " in 1969",
    " and then they",
    " walked slowly home.",
    "\n\nThe first",
    " never saw the sea again",
)
"""Texts that are asked twice before anything else."""

Values = npt.NDArray[np.float64]


class BlackBoxActivations:
    """A function of texts as a source of activations; see `ActivationSource`.

    The activation of a token is the function's value for the text of the `window` tokens up to and with it, or of as many as
    the sequence has before it: as in the corpus, with the white space in front. Where that text is empty (special tokens) the
    function is not asked and the activation is NaN, as it is where the function says so; the recorder counts it among
    those that are not finite.

    A text's value must depend on that text alone: texts are asked in batches of equal lengths, equal ones once, and answers
    are remembered in bounded memory.
    """

    def __init__(self, module: str, box: BlackBox, text_of: Callable[[Sequence[int]], str] | None = None) -> None:
        """Import the function and ask it some texts twice.

        Args:
            module: its name in the run file, `black_box:NAME`.
            text_of: from token ids to their text; not needed for `values` alone.

        Raises:
            UserError: the function is not there, fails, gives anything but numbers in the right shape, or changes its mind.
        """
        self.module, self.box, self._name = module, box, f"{module} ({box.call})"
        self.modules: Mapping[str, ModuleUnits] = {module: ModuleUnits(box.units)}
        self._function = open_function(module, box)
        self._batch_size: int = box.batch_size or int(getattr(self._function, "batch_size", BATCH_SIZE))
        self._text_of = text_of
        self._known: dict[str, Values] = {}
        self._largest = np.zeros(box.units)  # (U,) of all finite answers so far, without their sign
        self._room = max(1, KEPT_BYTES // (8 * box.units + TEXT_BYTES))
        self._tried, self._too_slow = False, ""
        self._ask_twice(SAMPLE)

    def run(self, batch: TokenBatch, receive: Receive) -> None:
        """Ask for the windows of a batch."""
        import torch

        assert self._text_of is not None, "activations of tokens need the text of tokens"
        texts = {
            (row, stop - 1): self._text_of(ids[max(0, stop - self.box.window) : stop])
            for row, (ids, length) in enumerate(zip(batch.token_ids.tolist(), batch.lengths.tolist(), strict=True))
            for stop in range(1, length + 1)
        }
        texts = {place: text for place, text in texts.items() if text}
        if not self._tried:
            self._ask_twice(list(dict.fromkeys(texts.values()))[:ASKED_TWICE])
            self._tried = True
        activations = np.full((*batch.token_ids.shape, self.box.units), np.nan, np.float32)
        if texts:
            with np.errstate(over="ignore"):
                activations[tuple(zip(*texts, strict=True))] = self.values(list(texts.values()))
        receive(self.module, torch.from_numpy(activations))

    def values(self, texts: Sequence[str]) -> Values:
        """(N, U) values of N texts, NaN and infinite ones as given. Raises UserError: the function fails, or gives something else."""
        distinct = dict.fromkeys(texts)
        answers = {text: self._known.pop(text) for text in distinct if text in self._known}
        missing = sorted((text for text in distinct if text not in answers), key=len)
        with tqdm(total=len(missing), desc=self.module, unit="text", leave=False, disable=None, delay=SLOW) as bar:
            for part in self._batches(missing):
                answers.update(zip(part, [row.copy() for row in self._ask(part)], strict=True))
                bar.update(len(part))
        self._known |= answers
        for oldest in list(islice(self._known, max(0, len(self._known) - self._room))):
            del self._known[oldest]
        return np.stack([answers[text] for text in texts]) if texts else np.zeros((0, self.box.units))

    def _batches(self, texts: Sequence[str]) -> list[Sequence[str]]:
        return [texts[start : start + self._batch_size] for start in range(0, len(texts), self._batch_size)]

    def _ask(self, texts: Sequence[str]) -> Values:
        """(N, U) answers of one call; a function that was too slow is not called again."""
        if self._too_slow:
            raise UserError(self._too_slow)
        try:
            with time_limit(self.box.timeout):
                answer = self._function(list(texts))
        except TooSlow:
            self._too_slow = (
                f"{self._name} took more than {self.box.timeout} s for {len(texts)} texts; make it faster, lower its batch_size, "
                "or raise its timeout"
            )
            raise UserError(self._too_slow) from None
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(
                f"{self._name} raised {told(error)} on {len(texts)} texts, the first {texts[0]!r}; correct the function"
            ) from error
        values = self._checked(answer, texts)
        finite = np.where(np.isfinite(values), np.abs(values), 0)
        self._largest = np.maximum(self._largest, finite.max(axis=0))
        return values

    def _checked(self, answer: Any, texts: Sequence[str]) -> Values:
        units = self.box.units
        expected = f"{len(texts)} numbers" if units == 1 else f"an array ({len(texts)}, {units})"
        try:
            values = np.asarray(_off_the_device(answer))
        except Exception as error:
            raise UserError(f"{self._name} gave {shown(answer)} ({told(error)}); expected {expected}") from error
        if values.dtype.kind not in "biuf":
            raise UserError(f"{self._name} gave {shown(answer)}, which are not numbers; expected {expected}")
        if values.ndim == 0 or len(values) != len(texts):
            raise UserError(
                f"{self._name} was given {len(texts)} texts and gave {values.shape[0] if values.ndim else 'one'} values; "
                f"expected {expected}"
            )
        if values.shape != (len(texts), units) and (units > 1 or values.ndim > 1):
            raise UserError(
                f"{self._name} gave an array of shape {values.shape}; expected {expected}: correct the function, or "
                f"subject.black_boxes.{self.module.partition(':')[2]}.units = {units}"
            )
        return values.astype(np.float64).reshape(len(texts), units)

    def confirm(self, texts: Sequence[str], values: Values) -> None:
        """Ask again about texts that were answered with (N, U) values, N not 0, and not remember it.

        How much is rounding goes by all answers of a unit so far: on few texts all of its answers may be near 0.

        Raises:
            UserError: the answers differ by more than rounding, or the function fails.
        """
        again = np.concatenate([self._ask(part) for part in self._batches(texts)])
        equal = np.isclose(values, again, rtol=0, atol=TOLERANCE * self._largest, equal_nan=True).all(axis=1)
        if not equal.all():
            place = int(np.flatnonzero(~equal)[0])
            raise UserError(
                f"{self._name} gave {texts[place]!r} {shown(values[place])} at first and {shown(again[place])} when asked "
                "again beside other texts; it must be deterministic and treat each text by itself: fix its seed, and switch off "
                "dropout"
            )

    def _ask_twice(self, texts: Sequence[str]) -> None:
        """Raise UserError where the function does not give a text the same values again, asked in another order."""
        if texts:
            self.confirm(texts[::-1], np.concatenate([self._ask(part) for part in self._batches(texts)])[::-1])


def _off_the_device(answer: Any) -> Any:
    """What numpy can take of a torch tensor: on the CPU, and of a type that numpy has."""
    if not hasattr(answer, "detach"):
        return answer
    found = answer.detach().cpu()
    return found.double() if found.is_floating_point() else found


class BlackBoxTexts:
    """A black box, asked for whole texts; some, spread over those of a call, are asked again beside other texts."""

    def __init__(self, source: BlackBoxActivations) -> None:
        self.units = source.box.units
        self._source = source
        self._first = FIRST

    def values(self, texts: Sequence[str]) -> Values:
        found = self._source.values(texts)
        if texts:
            step = max(1, min(AGAIN, len(texts) // self._first))
            self._source.confirm(texts[::step], found[::step])
            self._first = 1
        return found


def units_of(config: RunConfig, module: str) -> ModuleUnits:
    """See `OtherKind`."""
    return ModuleUnits(_settings(config, module).units)


def open_sources(config: RunConfig, modules: Sequence[str]) -> list[BlackBoxActivations]:
    """See `OtherKind`: with the subject's tokenizer to make texts of tokens."""
    tokenizer = load_tokenizer(config.subject.model, config.subject.trust_remote_code)
    text_of = TokenTexts(tokenizer).whole
    return [BlackBoxActivations(module, _settings(config, module), text_of) for module in modules]


def check(config: RunConfig, module: str) -> None:
    """See `OtherKind`: the function is asked a few texts twice."""
    open_sources(config, [module])


def text_function(config: RunConfig, module: str) -> BlackBoxTexts:
    """See `TextKind`."""
    return BlackBoxTexts(BlackBoxActivations(module, _settings(config, module)))


def check_text_function(config: RunConfig, module: str) -> None:
    """See `TextKind`."""
    load_function(module, _settings(config, module).call)


def _settings(config: RunConfig, module: str) -> BlackBox:
    found: BlackBox = parse_module(module).settings(config.subject)
    return found
