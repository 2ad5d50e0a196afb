"""The tokens of one call of llama.cpp, in arrays that it reads in place."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np


class TokenBatch:
    """A ``llama_batch`` over numpy arrays; each token belongs to one sequence.

    llama.cpp's own ``llama_batch_init`` gives every token a small array of sequence ids. Here those point into one
    array, which numpy fills at once.
    """

    def __init__(self, size: int) -> None:
        """``size``: the most tokens that it holds."""
        self._tokens = np.zeros(size, np.int32)
        self._positions = np.zeros(size, np.int32)
        self._sequences = np.zeros(size, np.int32)
        self._outputs = np.zeros(size, np.int8)
        self._ones = np.ones(size, np.int32)
        self._addresses = (self._sequences.ctypes.data + 4 * np.arange(size)).astype(np.uintp)
        self._native = lib.llama_batch(
            n_tokens=0,
            token=_pointer(self._tokens, lib.llama_token),
            pos=_pointer(self._positions, lib.llama_pos),
            n_seq_id=_pointer(self._ones, ctypes.c_int32),
            seq_id=_pointer(self._addresses, ctypes.POINTER(lib.llama_seq_id)),
            logits=_pointer(self._outputs, ctypes.c_int8),
        )

    def filled(
        self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int], outputs: Sequence[int]
    ) -> Any:
        """The native batch of these tokens; ``outputs`` holds 1 where a row is wanted. All have the same length."""
        count = len(tokens)
        self._tokens[:count] = tokens
        self._positions[:count] = positions
        self._sequences[:count] = sequences
        self._outputs[:count] = outputs
        self._native.n_tokens = count
        return self._native


def _pointer(array: np.ndarray[Any, Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))
