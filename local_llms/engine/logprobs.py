"""Log-probabilities of tokens under the model: the softmax of its logits, before bias, penalties, masks and cuts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from local_llms.types import TokenLogprob

Row = NDArray[np.float32]


class Likely:
    """What one request wants to know of each token: its log-probability, and the most probable tokens at its place."""

    def __init__(self, count: int, token_bytes: Callable[[int], bytes], markers: Mapping[str, int]) -> None:
        """``count``: how many tokens of each place. ``markers``: the text of each special token → its id."""
        self._count = count
        self._token_bytes = token_bytes
        self._markers = {number: text.encode() for text, number in markers.items()} if count else {}

    def of(self, row: Row, token: int) -> tuple[float, tuple[TokenLogprob, ...]]:
        """The token's own, and the most probable tokens, the first one first, of logits of shape (vocabulary,)."""
        if not self._count:
            return log_probability(row, token), ()
        norm = _log_sum(row)
        best = np.argpartition(-row, min(self._count, row.shape[0] - 1))[: self._count]
        best = best[np.argsort(-row[best], kind="stable")]
        likely = tuple(TokenLogprob(int(other), float(row[other]) - norm, self._bytes(int(other))) for other in best)
        return float(row[token]) - norm, likely

    def _bytes(self, token: int) -> bytes:
        return self._markers.get(token) or self._token_bytes(token)


def log_probability(row: Row, token: int) -> float:
    """Natural logarithm of a token's probability under the softmax of a row of shape (vocabulary,)."""
    return float(row[token]) - _log_sum(row)


def log_probabilities(rows: NDArray[np.float32], tokens: Sequence[int]) -> list[float]:
    """The same for one token a row; one row at a time, since a softmax of many would double the memory they take."""
    return [log_probability(row, token) for row, token in zip(rows, tokens, strict=True)]


def _log_sum(row: Row) -> float:
    """Logarithm of the sum of the exponentials."""
    top = float(row.max())
    return top + math.log(float(np.exp(row - np.float32(top)).sum(dtype=np.float64)))
