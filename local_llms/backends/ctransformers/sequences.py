"""The sequences: lists of token ids here, one of them computed in the child process.

The library keeps what one sequence needs, and computes from any position over what it knows before it. So the tokens
that it has computed last are remembered, and of the next sequence only what follows their common beginning is computed.
Whatever happens to the process, the lists stay: a new one computes them again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from local_llms.backends.base import BackendInfo, Chunk, Logits
from local_llms.backends.ctransformers.process import Child
from local_llms.errors import DecodeError, ModelLoadError


class Sequences:
    """decode, copy, cut and free. The caller sees to it that one thread at a time is in here."""

    def __init__(self, child: Child, info: BackendInfo, *, step: int, threads: int) -> None:
        """``step``: the most tokens in one call of the library, after which an interruption is noticed."""
        self._child = child
        self._info = info
        self._step = step
        self._threads = threads
        self._held: list[list[int]] = [[] for _ in range(info.max_sequences)]
        self._computed: list[int] = []
        self._interrupted = threading.Event()

    def decode(self, chunks: Sequence[Chunk]) -> Logits:
        """See ``Backend.decode``. Raises ValueError for chunks that break its rules."""
        self._check(chunks)
        self._interrupted.clear()
        width = self._info.vocabulary_size
        rows: list[Logits] = []
        for chunk in chunks:
            rows += self._compute([*self._held[chunk.sequence], *chunk.tokens], chunk)
        for chunk in chunks:
            self._held[chunk.sequence].extend(chunk.tokens)
        return np.stack(rows) if rows else np.empty((0, width), np.float32)

    def copy(self, source: int, target: int, length: int) -> None:
        """See ``Backend.copy``. Raises ValueError where it is not possible."""
        self._check_number(source)
        self._check_number(target)
        held = len(self._held[source])
        if self._held[target] or not 0 < length <= held:
            raise ValueError(
                f"cannot copy {length} tokens of sequence {source}, which holds {held}, to {target}, which holds "
                f"{len(self._held[target])}"
            )
        self._held[target] = self._held[source][:length]

    def cut(self, sequence: int, length: int) -> None:
        """See ``Backend.cut``. Raises ValueError where it is not possible."""
        self._check_number(sequence)
        held = len(self._held[sequence])
        if not 0 <= length <= held:
            raise ValueError(f"cannot cut sequence {sequence}, which holds {held} tokens, to {length}")
        del self._held[sequence][length:]

    def free(self, sequence: int) -> None:
        """See ``Backend.free``."""
        self._check_number(sequence)
        self._held[sequence] = []

    def interrupt(self) -> None:
        """Make a running ``decode`` stop before its next call of the library; one that hangs is ended after a while."""
        self._interrupted.set()

    def _compute(self, tokens: list[int], chunk: Chunk) -> list[Logits]:
        """Have the last token of ``tokens`` computed after all before it; the rows that the chunk asks for."""
        if not self._child.alive:
            self._computed = []
            try:
                self._child.start()
            except ModelLoadError as error:
                raise DecodeError(f"The process that computes could not be started again. {error}") from error
        known = _common(self._computed, tokens)
        first_row = len(tokens) - {"none": 0, "last": 1, "all": len(chunk.tokens)}[chunk.logits]
        at = min(known, first_row)
        rows: list[Logits] = []
        while at < len(tokens):
            if self._interrupted.is_set():
                raise DecodeError("The computation was interrupted.")
            # The library gives the row of the last token of a call: where one is wanted, the call ends.
            end = min(at + self._step, max(at, first_row) + 1, len(tokens))
            row = self._evaluate(tokens, at, end, wanted=end > first_row)
            rows += [] if row is None else [row]
            at = end
        return rows

    def _evaluate(self, tokens: list[int], start: int, end: int, *, wanted: bool) -> Logits | None:
        # Should the call fail, nobody knows what the library wrote where.
        self._computed = self._computed[:start]
        row = self._child.evaluate(
            tokens[start:end],
            start,
            batch=self._step,
            threads=self._threads,
            logits=wanted,
            stopped=self._interrupted,
        )
        self._computed = tokens[:end]
        if row is not None and len(row) != self._info.vocabulary_size:
            raise DecodeError(f"ctransformers gave {len(row)} logits for {self._info.vocabulary_size} tokens.")
        return row

    def _check(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            number, start, count = chunk.sequence, chunk.start, len(chunk.tokens)
            self._check_number(number)
            if start != len(self._held[number]):
                raise ValueError(
                    f"sequence {number} holds {len(self._held[number])} tokens, and a chunk begins at {start}"
                )
            if not count:
                raise ValueError(f"the chunk for sequence {number} has no tokens")
            if start + count > self._info.context_length:
                raise ValueError(f"sequence {number} would hold more than {self._info.context_length} tokens")
            if chunk.logits not in ("none", "last", "all"):
                raise ValueError(f'logits is "none", "last" or "all", not {chunk.logits!r}')
            if min(chunk.tokens) < 0 or max(chunk.tokens) >= self._info.vocabulary_size:
                raise ValueError(f"a token is not one of the {self._info.vocabulary_size} of the vocabulary")
        if len({chunk.sequence for chunk in chunks}) != len(chunks):
            raise ValueError("a sequence occurs twice in one decode")
        total = sum(len(chunk.tokens) for chunk in chunks)
        if total > self._info.batch_tokens:
            raise ValueError(f"{total} tokens in one decode; at most {self._info.batch_tokens} are possible")

    def _check_number(self, sequence: int) -> None:
        if not 0 <= sequence < len(self._held):
            raise ValueError(f"there is no sequence {sequence}; there are {len(self._held)}")


def _common(a: list[int], b: list[int]) -> int:
    """Length of the common beginning."""
    shorter = min(len(a), len(b))
    if a[:shorter] == b[:shorter]:
        return shorter
    return next(number for number in range(shorter) if a[number] != b[number])
