"""Who may use a loaded model: nobody after it was closed, nobody in a forked child."""

from __future__ import annotations

import os
import threading
from types import TracebackType

from local_llms.errors import EngineClosed, EngineForked


class Lifetime:
    """Used as a context manager around every use of the model; ``end`` waits for those who are inside.

    Entering raises EngineClosed after ``end`` and EngineForked in a forked child. Any number of threads may be inside.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._inside = 0
        self._ended = False

    def __enter__(self) -> None:
        if self.forked:
            raise EngineForked(
                "The model was loaded before this process was forked, and torch's threads do not live in a fork. "
                'Load it here with load_model(), or start processes with the method "spawn".'
            )
        with self._changed:
            if self._ended:
                raise EngineClosed("The model was closed. Load it again with load_model().")
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._inside -= 1
            if self._ended:
                self._changed.notify_all()

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that loaded the model."""
        return os.getpid() != self._process

    def end(self) -> bool:
        """Let nobody in any more and wait for those inside; False where that was done before, or in a fork."""
        if self.forked:
            return False
        with self._changed:
            if self._ended:
                return False
            self._ended = True
            while self._inside:
                self._changed.wait()
            return True
