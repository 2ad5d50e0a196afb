"""The adapters that a backend has opened, and who waits for one to be."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from local_llms.backends.base import Backend
from local_llms.errors import AdapterError, LocalLLMError

Stamp = frozenset[tuple[str, int, int]]
"""Name, time of change in nanoseconds and bytes of every file of an adapter."""


class Adapters:
    """Opens each adapter once. ``ask`` may be called from any thread, everything else from the engine's."""

    def __init__(self, backend: Backend, tell: Callable[[Path, float], object]) -> None:
        """``tell`` hears of each adapter that was opened, and how many seconds that took."""
        self._backend = backend
        self._tell = tell
        self._opened: dict[Path, Stamp] = {}
        self._asked: deque[tuple[Path, Future[None]]] = deque()

    def ask(self, path: Path) -> Future[None]:
        """Have an adapter opened soon; the future fails with what ``open`` raises."""
        future: Future[None] = Future()
        self._asked.append((path, future))
        return future

    @property
    def asked(self) -> bool:
        """Whether somebody waits for an adapter."""
        return bool(self._asked)

    def open(self, path: Path) -> None:
        """Have it opened, where it is not yet.

        Raises what the backend raises, and AdapterError for one whose files have changed since: the weights in memory
        would be those of before.
        """
        stamp = _stamp(path)
        known = self._opened.get(path)
        if known is None:
            started = time.monotonic()
            self._backend.open_adapter(path)
            self._opened[path] = stamp
            self._tell(path, time.monotonic() - started)
        elif stamp and stamp != known:
            raise AdapterError(
                f"The adapter {path} was opened before and its files have changed since. Close the model and load it "
                "again, or give the new adapter a path of its own."
            )

    def open_asked(self) -> None:
        """Open one that was asked for, if any. What the backend should not raise passes through."""
        if not self._asked:
            return
        path, future = self._asked[0]
        error: LocalLLMError | ValueError | None = None
        # Whatever happens, the future stays in line until it is told, and pending, so that ``fail`` can tell it.
        if not future.cancelled():
            try:
                self.open(path)
            except (LocalLLMError, ValueError) as refusal:
                error = refusal
        self._asked.popleft()
        if future.set_running_or_notify_cancel():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def fail(self, error: LocalLLMError) -> None:
        """Nothing more is opened: tell those who wait."""
        while self._asked:
            _, future = self._asked.popleft()
            if future.set_running_or_notify_cancel():
                future.set_exception(error)


def _stamp(path: Path) -> Stamp:
    """Empty where nothing is there any more: what is in memory goes on to serve."""
    try:
        entries = list(os.scandir(path)) if path.is_dir() else [path]
        found = [(os.fspath(entry), entry.stat()) for entry in entries]
    except OSError:
        return frozenset()
    return frozenset((name, status.st_mtime_ns, status.st_size) for name, status in found)
