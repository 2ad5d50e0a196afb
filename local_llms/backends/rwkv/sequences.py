"""The sequences of a loaded model: decode, copy, cut, free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from local_llms.backends.base import BackendInfo, Chunk, Logits
from local_llms.backends.rwkv.batch import Batch
from local_llms.backends.rwkv.network import Network
from local_llms.backends.rwkv.states import States
from local_llms.errors import DecodeError


class Sequences:
    """Counts what each sequence has read, and refuses a wrong call before anything is computed."""

    def __init__(self, network: Network, info: BackendInfo, threads: int) -> None:
        """``threads``: how many the computing thread may use on a CPU."""
        self._network = network
        self._info = info
        self._threads = threads
        self._device = network.states.initial.device
        self._states = States(network.states)
        self._lengths = [0] * info.max_sequences
        self._stop = False

    @property
    def state_bytes(self) -> int:
        """Bytes of all states that are held now."""
        return self._states.size

    @torch.inference_mode()
    def decode(self, chunks: Sequence[Chunk]) -> Logits:
        """See ``Backend.decode``. Raises ValueError for chunks that break its rules."""
        self._check(chunks)
        if not chunks:
            return np.empty((0, self._info.vocabulary_size), np.float32)
        if torch.get_num_threads() != self._threads:
            # A setting of the calling thread, which is the engine's own.
            torch.set_num_threads(self._threads)
        self._stop = False
        batch = Batch.of(chunks, self._device)
        numbers = [chunks[index].sequence for index in batch.order]
        try:
            rows = self._network.compute(batch, self._states.gather(numbers), self._proceed)
            logits: Logits = rows.cpu().numpy()
        except (RuntimeError, MemoryError, DecodeError) as error:
            # A state has no way back: what it is now nobody knows.
            for number in numbers:
                self._forget(number)
            if isinstance(error, DecodeError):
                raise
            raise DecodeError(f"torch could not compute these tokens: {error}") from error
        for chunk in chunks:
            self._lengths[chunk.sequence] += len(chunk.tokens)
        return logits

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """See ``Backend.copy``. Raises ValueError where it is not possible."""
        self._check_number(source)
        self._check_number(target)
        held = self._lengths[source]
        if self._lengths[target] or not 0 < length <= held:
            raise ValueError(
                f"cannot copy {length} tokens of sequence {source}, which holds {held}, to {target}, which holds "
                f"{self._lengths[target]}"
            )
        if length < held:
            raise ValueError(f"a recurrent state is copied whole: sequence {source} holds {held} tokens")
        self._states.copy(source, target)
        self._lengths[target] = length

    @torch.inference_mode()
    def cut(self, sequence: int, length: int) -> None:
        """See ``Backend.cut``. Raises ValueError where it is not possible."""
        self._check_number(sequence)
        held = self._lengths[sequence]
        if not 0 <= length <= held:
            raise ValueError(f"cannot cut sequence {sequence}, which holds {held} tokens, to {length}")
        if 0 < length < held:
            raise ValueError("a recurrent state cannot be cut")
        if length < held:
            self._forget(sequence)

    @torch.inference_mode()
    def free(self, sequence: int) -> None:
        """See ``Backend.free``."""
        self._check_number(sequence)
        self._forget(sequence)

    def interrupt(self) -> None:
        """Make a running decode end at its next layer. May be called from any thread."""
        self._stop = True

    def _proceed(self) -> None:
        if self._stop:
            raise DecodeError("The computation was interrupted.")

    def _forget(self, sequence: int) -> None:
        self._states.free(sequence)
        self._lengths[sequence] = 0

    def _check_number(self, sequence: int) -> None:
        if not 0 <= sequence < len(self._lengths):
            raise ValueError(f"there is no sequence {sequence}; there are {len(self._lengths)}")

    def _check(self, chunks: Sequence[Chunk]) -> None:
        info, total = self._info, 0
        seen: set[int] = set()
        for chunk in chunks:
            number, start, count = chunk.sequence, chunk.start, len(chunk.tokens)
            self._check_number(number)
            if number in seen:
                raise ValueError("a sequence occurs twice in one decode")
            if start != self._lengths[number]:
                raise ValueError(
                    f"sequence {number} holds {self._lengths[number]} tokens, and a chunk begins at {start}"
                )
            if not count:
                raise ValueError(f"the chunk for sequence {number} has no tokens")
            if start + count > info.context_length:
                raise ValueError(f"sequence {number} would hold more than {info.context_length} tokens")
            if chunk.logits not in ("none", "last", "all"):
                raise ValueError(f'logits is "none", "last" or "all", not {chunk.logits!r}')
            low, high = min(chunk.tokens), max(chunk.tokens)
            if low < 0 or high >= info.vocabulary_size:
                raise ValueError(
                    f"there is no token {low if low < 0 else high}; the vocabulary has {info.vocabulary_size}"
                )
            seen.add(number)
            total += count
        if total > info.batch_tokens:
            raise ValueError(f"{total} tokens in one decode; at most {info.batch_tokens} are possible")
