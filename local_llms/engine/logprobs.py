"""Log-probabilities of tokens under the model: the softmax of its logits, before bias, penalties, masks and cuts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from local_llms.backends.base import Backend
from local_llms.types import TokenLogprob

Row = NDArray[np.float32]


class TokenNames:
    """What tokens are called: the bytes of ordinary ones, the markers of special ones. May be used from any thread."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @cached_property
    def _markers(self) -> dict[int, bytes]:
        return {number: text.encode() for text, number in self._backend.info.special_tokens.items()}

    def __call__(self, token: int) -> bytes:
        """The name of a token."""
        return self._markers.get(token) or self._backend.token_bytes(token)


def likely(row: Row, token: int, count: int, names: TokenNames) -> tuple[TokenLogprob, tuple[TokenLogprob, ...]]:
    """A token, and the ``count`` most probable ones, the first one first, under logits of shape (vocabulary,)."""
    norm = _log_sum(row)

    def told(other: int) -> TokenLogprob:
        return TokenLogprob(other, float(row[other]) - norm, names(other))

    if not count:
        return told(token), ()
    count = min(count, row.shape[0])
    best = np.argpartition(row, -count)[-count:]
    return told(token), tuple(told(int(other)) for other in best[np.lexsort((best, -row[best]))])


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
