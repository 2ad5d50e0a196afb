"""The sequences of a context: the KV cache, or the recurrent states, and the computing that fills them."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from local_llms.backends.base import Adapter, BackendInfo, Chunk, Logits
from local_llms.backends.llama_cpp.batch import TokenBatch
from local_llms.backends.llama_cpp.logs import Listening
from local_llms.backends.llama_cpp.loras import Loras
from local_llms.backends.llama_cpp.native import Native
from local_llms.backends.llama_cpp.vocabulary import check_ids
from local_llms.errors import CacheFull, DecodeError

_FULL, _ABORTED = 1, 2
"""What llama_decode returns where there is no room, and after an interruption."""

# llama_get_logits as llama-cpp-python declares it makes a pointer object; the address is enough.
_logits_address = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(
    ctypes.cast(lib.llama_get_logits, ctypes.c_void_p).value or 0
)


class Sequences:
    """Counts what each sequence holds, so that a wrong call is refused here: llama.cpp may end the process."""

    def __init__(self, native: Native, info: BackendInfo, loras: Loras) -> None:
        self.loras = loras
        self._native = native
        self._info = info
        self._batch = TokenBatch(info.batch_tokens)
        self._lengths = [0] * info.max_sequences
        self._computing = threading.Lock()
        self._view_key = (0, 0)
        self._view: NDArray[np.float32] = np.empty((0, info.vocabulary_size), np.float32)

    def decode(self, chunks: Sequence[Chunk], adapter: Adapter | None) -> Logits:
        """See ``Backend.decode``. Raises ValueError for chunks and an adapter that break its rules."""
        native = self._native
        with native, self._computing:
            batch, rows = self._fill(chunks)
            if not batch:
                return np.empty((0, self._info.vocabulary_size), np.float32)
            self.loras.check(adapter)
            self.loras.use(adapter)
            native.begin()
            code, heard = native.decode(batch)
            if code != 0:
                self._undo(chunks, code)
                native.check_open()
                raise _failure(code, heard)
            for chunk in chunks:
                self._lengths[chunk.sequence] += len(chunk.tokens)
            return self._rows(rows)

    def copy(self, source: int, target: int, length: int) -> None:
        """See ``Backend.copy``. Raises ValueError where it is not possible."""
        with self._native as native, self._computing:
            self._check_number(source)
            self._check_number(target)
            held = self._lengths[source]
            if self._lengths[target] or not 0 < length <= held:
                raise ValueError(
                    f"cannot copy {length} tokens of sequence {source}, which holds {held}, to {target}, which holds "
                    f"{self._lengths[target]}"
                )
            if length < held and not self._info.can_cut:
                raise ValueError(f"a recurrent state is copied whole: sequence {source} holds {held} tokens")
            lib.llama_memory_seq_cp(native.memory, source, target, 0, length)
            self._lengths[target] = length

    def cut(self, sequence: int, length: int) -> None:
        """See ``Backend.cut``. Raises ValueError where it is not possible."""
        with self._native, self._computing:
            self._check_number(sequence)
            held = self._lengths[sequence]
            if not 0 <= length <= held:
                raise ValueError(f"cannot cut sequence {sequence}, which holds {held} tokens, to {length}")
            if 0 < length < held and not self._info.can_cut:
                raise ValueError("a recurrent state cannot be cut")
            if length < held:
                self._forget(sequence, length)

    def free(self, sequence: int) -> None:
        """See ``Backend.free``."""
        with self._native, self._computing:
            self._check_number(sequence)
            if self._lengths[sequence]:
                self._forget(sequence, 0)

    def _forget(self, sequence: int, start: int) -> None:
        if not lib.llama_memory_seq_rm(self._native.memory, sequence, start, -1):
            raise DecodeError(f"llama.cpp could not shorten sequence {sequence} to {start} tokens")
        self._lengths[sequence] = start

    def _check_number(self, sequence: int) -> None:
        if not 0 <= sequence < len(self._lengths):
            raise ValueError(f"there is no sequence {sequence}; there are {len(self._lengths)}")

    def _fill(self, chunks: Sequence[Chunk]) -> tuple[object, int]:
        """The batch of these chunks (None where there are none) and the number of rows. Raises ValueError."""
        tokens: list[int] = []
        positions: list[int] = []
        sequences: list[int] = []
        outputs: list[int] = []
        seen: set[int] = set()
        for chunk in chunks:
            number, start, count = chunk.sequence, chunk.start, len(chunk.tokens)
            self._check_number(number)
            if start != self._lengths[number]:
                raise ValueError(
                    f"sequence {number} holds {self._lengths[number]} tokens, and a chunk begins at {start}"
                )
            if not count:
                raise ValueError(f"the chunk for sequence {number} has no tokens")
            if start + count > self._info.context_length:
                raise ValueError(f"sequence {number} would hold more than {self._info.context_length} tokens")
            seen.add(number)
            tokens.extend(chunk.tokens)
            positions.extend(range(start, start + count))
            if chunk.logits == "all":
                outputs.extend([1] * count)
            elif chunk.logits in ("last", "none"):
                outputs.extend([0] * (count - 1))
                outputs.append(1 if chunk.logits == "last" else 0)
            else:
                raise ValueError(f'logits is "none", "last" or "all", not {chunk.logits!r}')
            sequences.extend([number] * count)
        if not tokens:
            return None, 0
        if len(seen) != len(chunks):
            raise ValueError("a sequence occurs twice in one decode")
        if len(tokens) > self._info.batch_tokens:
            raise ValueError(f"{len(tokens)} tokens in one decode; at most {self._info.batch_tokens} are possible")
        check_ids(tokens, self._info.vocabulary_size)
        return self._batch.filled(tokens, positions, sequences, outputs), sum(outputs)

    def _undo(self, chunks: Sequence[Chunk], code: int) -> None:
        """Take out what a failed decode may have left."""
        if code == _FULL:
            return
        for chunk in chunks:
            # A recurrent state has no way back: what it is after a failure nobody knows, so it is emptied.
            start = chunk.start if self._info.can_cut else 0
            self._forget(chunk.sequence, start)

    def _rows(self, count: int) -> Logits:
        """The logits where llama.cpp keeps them, without a copy."""
        if not count:
            return np.empty((0, self._info.vocabulary_size), np.float32)
        address = _logits_address(self._native.context)
        if not address:
            raise DecodeError("llama.cpp gave no logits")
        if self._view_key != (address, count):
            width = self._info.vocabulary_size
            memory: Any = (ctypes.c_float * (count * width)).from_address(address)
            self._view = np.frombuffer(memory, np.float32).reshape(count, width)
            self._view_key = (address, count)
        return self._view


def _failure(code: int, heard: Listening) -> DecodeError:
    if code == _FULL:
        return CacheFull("The KV cache has no room for these tokens. Free a sequence, or load with more cache_tokens.")
    if code == _ABORTED:
        return DecodeError("The computation was interrupted.")
    return DecodeError(f"llama.cpp could not compute these tokens (code {code}){heard.last_words()}")
