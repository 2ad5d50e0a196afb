"""A task of embedding texts, computed part by part, so that answers under way need not wait for all of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from local_llms.backends.base import Backend, BackendInfo

Vectors = NDArray[np.float32]


class EmbeddingTask:
    """Texts as token ids, and the future of their vectors, an array of shape (texts, embedding size)."""

    def __init__(self, texts: Sequence[Sequence[int]], info: BackendInfo) -> None:
        self.future: Future[Vectors] = Future()
        self._parts = deque(parts_of(texts, info.batch_tokens, info.max_sequences))
        self._vectors: list[Vectors] = [np.zeros((0, info.embedding_size or 0), dtype=np.float32)]

    def advance(self, backend: Backend) -> bool:
        """Compute one part; whether the task is over. What the backend raises passes through."""
        # The future is left pending until the end, since one that runs could not be cancelled any more.
        if self.future.cancelled():
            return not self.future.set_running_or_notify_cancel()
        if self._parts:
            self._vectors.append(backend.embed(self._parts.popleft()))
        if self._parts:
            return False
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(np.concatenate(self._vectors))
        return True

    def fail(self, error: BaseException) -> None:
        """End the task with an error."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


def parts_of(texts: Sequence[Sequence[int]], most_tokens: int, most_texts: int) -> list[list[list[int]]]:
    """Texts in groups that fit into one call of a backend each; a text that is too long is alone in its group."""
    parts: list[list[list[int]]] = []
    room = 0
    for text in texts:
        if not parts or len(text) > room or len(parts[-1]) >= most_texts:
            parts.append([])
            room = most_tokens
        parts[-1].append(list(text))
        room -= len(text)
    return parts
