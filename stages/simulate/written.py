"""Probabilities of the numbers at a number that a model wrote, from the alternatives to the tokens of its reply."""

import math
from bisect import bisect_right
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from pipeline.llm.engine import NUMBERS, Completion, ReplyToken

Chances = npt.NDArray[np.float64]
_NUMBERS = {str(number): number for number in NUMBERS}


class WrittenNumbers:
    """The numbers of one reply, found by their places in its text."""

    def __init__(self, completion: Completion) -> None:
        self._text, self._tokens = completion.text, completion.tokens
        self._starts = [0, *accumulate(len(token.text) for token in self._tokens)]
        """Where each token begins in the text, and where the last one ends."""
        if "".join(token.text for token in self._tokens) != self._text:
            self._tokens = ()

    def probabilities(self, start: int, end: int) -> tuple[Chances, float]:
        """The number at text[start:end]: (11,) normalised probabilities of the numbers, and their sum before that.

        The alternatives to its first token are those numbers that are one token; white space before them is that of the
        token. Where "10" is written in two tokens, the "1" is divided by the chance of a "0" behind it, which is known
        if a "1" was written; otherwise all of it counts as 1. Without alternatives, or where the first token holds more
        than the number, the written number has all probability and the sum is 1.
        """
        place = bisect_right(self._starts, start) - 1
        chances = self._at(place, start, end)
        if chances is None or not (mass := float(chances.sum())) > 0:
            return np.eye(len(NUMBERS))[int(self._text[start:end])], 1.0
        return chances / mass, min(mass, 1.0)

    def _at(self, place: int, start: int, end: int) -> Chances | None:
        if place >= len(self._tokens) or not (token := self._tokens[place]).alternatives:
            return None
        before = self._text[self._starts[place] : start]
        shown = self._text[start : self._starts[place + 1]]
        if before.strip() or not self._text[start:end].startswith(shown.rstrip()) or not shown.strip():
            return None
        chances = np.zeros(len(NUMBERS))
        for text, log_probability in token.alternatives:
            number = _NUMBERS.get(text.strip())
            if number is not None and text.startswith(before):
                chances[number] += math.exp(log_probability)
        if shown == "1":
            ten = chances[1] * self._zero_next(place + 1)
            chances[[1, 10]] += [-ten, ten]
        return chances

    def _zero_next(self, place: int) -> float:
        """Probability of a "0" as the next token."""
        token = self._tokens[place] if place < len(self._tokens) else ReplyToken("", ())
        return min(sum(math.exp(chance) for text, chance in token.alternatives if text == "0"), 1.0)
