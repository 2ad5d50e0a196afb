"""How far one answer has come in its grammar, and which tokens may come next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from local_llms.errors import ConstraintError

if TYPE_CHECKING:
    from llguidance import LLMatcher

Allowed = NDArray[np.bool_]
"""Shape (vocabulary size,)."""

_NO_TOKEN = "The answer cannot go on as its schema or grammar asks: this model's vocabulary has no token for it."


class Matcher:
    """The state of one request. Used by one thread at a time."""

    def __init__(self, native: LLMatcher, size: int, end_ids: Iterable[int], *, stops: bool) -> None:
        """``size``: tokens in the vocabulary. ``end_ids``: tokens that end an answer."""
        self._native = native
        self._size = size
        self._ends = np.fromiter(end_ids, dtype=np.int64)
        self._end_ids = frozenset(end_ids)
        self._bits = np.zeros((1, (size + 1 + 31) // 32), dtype=np.int32)
        self._stops = stops

    @property
    def complete(self) -> bool:
        """Whether the answer so far is one that the grammar allows."""
        return bool(self._native.is_accepting())

    @property
    def finished(self) -> bool:
        """Whether nothing can follow."""
        return bool(self._native.is_stopped())

    @property
    def heeds_stops(self) -> bool:
        """Whether a stop string would end the answer here."""
        return self._stops and self.complete

    def allowed(self) -> Allowed:
        """Which tokens may come next; an end token where the answer may end. Raises ConstraintError."""
        from llguidance.numpy import fill_next_token_bitmask

        fill_next_token_bitmask(self._native, self._bits, 0)
        self._check()
        bits = np.unpackbits(self._bits.view(np.uint8)[0], bitorder="little", count=self._size + 1)
        allowed = bits.view(np.bool_)
        allowed[self._ends] = allowed[self._size]
        allowed = allowed[: self._size]
        if not allowed.any():
            raise ConstraintError(_NO_TOKEN)
        return allowed

    def accept(self, token: int) -> None:
        """Take the token that came. Raises ConstraintError where the grammar has become too complex."""
        if token not in self._end_ids:
            self._native.consume_token(token)
            self._check()

    def _check(self) -> None:
        if not self._native.is_error():
            return
        reason = self._native.get_error().split("\n")[0]
        if reason.startswith("NoExtension"):
            raise ConstraintError(_NO_TOKEN)
        raise ConstraintError(f"The schema or grammar became too complex while answering: {reason}")
