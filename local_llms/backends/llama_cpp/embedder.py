"""Vectors of texts, from an embedding model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from local_llms.backends.base import BackendInfo
from local_llms.backends.llama_cpp.batch import TokenBatch
from local_llms.backends.llama_cpp.native import Native
from local_llms.backends.llama_cpp.vocabulary import Vocabulary, check_ids
from local_llms.errors import DecodeError


class Embedder:
    """Computes several texts in one call, each as a sequence of its own; the model pools its tokens."""

    def __init__(self, native: Native, info: BackendInfo, vocabulary: Vocabulary) -> None:
        self._native = native
        self._info = info
        self._vocabulary = vocabulary
        self._before, self._after = vocabulary.frame()
        self._batch = TokenBatch(info.batch_tokens)
        self._computing = threading.Lock()
        self._size = info.embedding_size or 0

    def encode(self, text: str) -> list[int]:
        """See ``Backend.encode_for_embedding``."""
        room = self._info.context_length - len(self._before) - len(self._after)
        return [*self._before, *self._vocabulary.tokenize_with_unknown(text)[:room], *self._after]

    def embed(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """See ``Backend.embed``. Raises ValueError for an empty or overlong text and for unknown ids."""
        for ids in texts:
            if not 0 < len(ids) <= self._info.context_length:
                raise ValueError(f"a text has {len(ids)} tokens; 1 to {self._info.context_length} are possible")
            check_ids(ids, self._info.vocabulary_size)
        vectors = np.empty((len(texts), self._size), np.float32)
        with self._native, self._computing:
            self._native.begin()
            for start, stop in self._packs([len(ids) for ids in texts]):
                self._compute(texts[start:stop], vectors[start:stop])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or (lengths == 0).any():
            raise DecodeError("The model gave a vector without a direction: its weights are damaged.")
        vectors /= lengths
        return vectors

    def _packs(self, lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Ranges of texts that fit into one call, in order."""
        start = tokens = 0
        for number, length in enumerate(lengths):
            if tokens + length > self._info.batch_tokens or number - start == self._info.max_sequences:
                yield start, number
                start, tokens = number, 0
            tokens += length
        if tokens:
            yield start, len(lengths)

    def _compute(self, texts: Sequence[Sequence[int]], vectors: NDArray[np.float32]) -> None:
        native = self._native
        tokens = [token for ids in texts for token in ids]
        positions = [position for ids in texts for position in range(len(ids))]
        sequences = [number for number, ids in enumerate(texts) for _ in ids]
        batch = self._batch.filled(tokens, positions, sequences, [1] * len(tokens))
        # A model without a KV cache takes the encoder's way by itself.
        code, heard = native.decode(batch)
        if native.memory:
            lib.llama_memory_clear(native.memory, True)
        if code != 0:
            native.check_open()
            raise DecodeError(f"llama.cpp could not embed these texts (code {code}){heard.last_words()}")
        for number in range(len(texts)):
            pointer = lib.llama_get_embeddings_seq(native.context, number)
            if not pointer:
                raise DecodeError("llama.cpp gave no vector for a text.")
            vectors[number] = np.ctypeslib.as_array(pointer, (self._size,))
