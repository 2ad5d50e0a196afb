"""Constraints → matchers for one loaded model. What was compiled is kept, within a bound, and used again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from local_llms.constraints import vocabulary
from local_llms.constraints.matcher import Matcher
from local_llms.constraints.spec import Constraint
from local_llms.errors import ConstraintError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

KEPT = 64
"""Compiled constraints that a loaded model keeps, at most."""
KEPT_BYTES = 1_000_000
"""Bytes that the sources of those have together, at most. What a constraint takes in memory grows with its source."""


class Compiled:
    """A constraint, ready to be used by any number of requests, for the model that it was compiled for."""

    def __init__(self, constraint: Constraint, native: LLMatcher, size: int) -> None:
        self.constraint = constraint
        self._native = native
        self._size = size
        self._lock = threading.Lock()

    def matcher(self, end_ids: Iterable[int]) -> Matcher:
        """A new state, at the beginning. ``end_ids``: the tokens that end the answer."""
        with self._lock:
            native = self._native.deep_copy()
        return Matcher(native, self._size, end_ids, stops=self.constraint.stops)


class Compiler:
    """All methods may be called from any thread."""

    def __init__(self, backend: vocabulary.Tokenizer) -> None:
        """Nothing is imported or built before the first constraint."""
        self._backend = backend
        self._tokenizer: LLTokenizer | None = None
        self._kept: OrderedDict[Constraint, Compiled] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._compiling = threading.Lock()

    def known(self, constraint: Constraint) -> bool:
        """Whether ``compile`` would return at once."""
        return constraint in self._kept

    def compile(self, constraint: Constraint) -> Compiled:
        """The compiled form, from the kept ones if it is there.

        Raises ConstraintError where the grammar is malformed, unsupported or too complex, or allows nothing, and
        MissingDependency.
        """
        compiled = self._known(constraint)
        if compiled is not None:
            return compiled
        # One at a time; whoever asks for what is kept does not wait for it.
        with self._compiling:
            compiled = self._known(constraint)
            if compiled is None:
                compiled = self._compile(constraint)
                self._keep(compiled)
            return compiled

    def _known(self, constraint: Constraint) -> Compiled | None:
        with self._lock:
            compiled = self._kept.get(constraint)
            if compiled is not None:
                self._kept.move_to_end(constraint)
            return compiled

    def _keep(self, compiled: Compiled) -> None:
        with self._lock:
            self._kept[compiled.constraint] = compiled
            self._bytes += len(compiled.constraint.source)
            while len(self._kept) > 1 and (len(self._kept) > KEPT or self._bytes > KEPT_BYTES):
                oldest, _ = self._kept.popitem(last=False)
                self._bytes -= len(oldest.source)

    def _compile(self, constraint: Constraint) -> Compiled:
        if self._tokenizer is None:
            self._tokenizer = vocabulary.build(self._backend)
        from llguidance import LLMatcher

        native = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(constraint.source), log_level=0)
        if native.is_error():
            raise ConstraintError(f"The schema or grammar cannot be used: {_reason(native.get_error())}.")
        compiled = Compiled(constraint, native, self._backend.info.vocabulary_size)
        compiled.matcher(()).allowed()
        return compiled


def _reason(error: str) -> str:
    """The library's words without the grammar, which it repeats, and without the place of a schema in it."""
    said = " ".join(line.strip() for line in error.split("\n   1 | ")[0].splitlines())
    return (said.partition("failed to compile JSON schema: ")[2] or said).partition(" while processing ")[0]
