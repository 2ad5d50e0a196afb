"""How well a model predicts a text that is longer than its context.

The text is taken in passages of a fixed number of characters, the same for every model, whatever its vocabulary. Each
begins ``stride`` characters after the one before, and only what no earlier passage had is counted: so every counted
token, but those of the first passage, has at least ``window - stride`` characters before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from local_llms.errors import OptionError
from local_llms.types import Score


@dataclass(frozen=True, slots=True)
class Passages:
    """``window``: characters of a passage. ``stride``: from the beginning of one to that of the next."""

    text: str
    window: int
    stride: int

    def __post_init__(self) -> None:
        """Raise OptionError for a stride that leaves gaps, and for a text without anything."""
        if not 0 < self.stride <= self.window:
            raise OptionError(f"stride={self.stride} must be from 1 to the window, which is {self.window}.")
        if not self.text.strip():
            raise OptionError("The text is empty. Give one with some words.")

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """What is given as context, and what is counted after it: together a passage."""
        done = 0
        while done < len(self.text):
            end = min(len(self.text), done + (self.window if done == 0 else self.stride))
            end = self._before_space(end, done)
            start = max(0, end - self.window)
            yield self.text[self._before_space(start, -1) if start else 0 : done], self.text[done:end]
            done = end

    def _before_space(self, place: int, least: int) -> int:
        """The last place from there backwards at which a word begins with its space, so that no token is cut.

        Not beyond ``least``, nor further than a long word: then the place itself.
        """
        if place >= len(self.text):
            return len(self.text)
        found = self.text.rfind(" ", max(least + 1, place - 40, 0), place + 1)
        return place if found < 0 else found


@dataclass(frozen=True, slots=True)
class Prediction:
    """The sum of the natural logarithms of probabilities, over ``tokens`` tokens and ``size`` bytes of text."""

    logprob: float
    tokens: int
    size: int

    @property
    def perplexity(self) -> float:
        """Per token: the exponential of the mean negative log-probability."""
        return math.exp(min(-self.logprob / self.tokens, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """Bits that a perfect compressor with this model would need for a byte of the text."""
        return -self.logprob / math.log(2) / self.size


def predict(score: Callable[[str], Score], tokenize: Callable[[str], list[int]], passages: Passages) -> Prediction:
    """Score all passages. A token that nothing precedes has no probability, and is not counted."""
    logprob, tokens, size = 0.0, 0, 0
    for context, counted in passages:
        known = len(tokenize(context)) if context else 0
        values = [value for value in score(context + counted).token_logprobs[known:] if value is not None]
        logprob += sum(values)
        tokens += len(values)
        size += len(counted.encode("utf-8", "replace"))
    if not tokens:
        raise OptionError("No token of the text could be counted. Give a longer text.")
    return Prediction(logprob, tokens, size)
