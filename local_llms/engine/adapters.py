"""The adapters that a backend has opened, and who waits for one to be."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from local_llms.backends.base import Backend
from local_llms.errors import AdapterError, LocalLLMError

Stamp = frozenset[tuple[str, int, int]]
"""Name, time of change in nanoseconds and bytes of every file of an adapter."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of opening an adapter as its files were then."""

    stamp: Stamp
    seconds: float
    error: LocalLLMError | ValueError | None


class Adapters:
    """Opens each adapter once. ``prepare`` and ``ask`` may be called from any thread, everything else from the
    engine's.
    """

    def __init__(self, backend: Backend, tell: Callable[[Path, float], object]) -> None:
        """``tell`` hears of each adapter that was opened, and how many seconds that took."""
        self._backend = backend
        self._tell = tell
        self._opened: set[Path] = set()
        self._asked: deque[tuple[Path, Future[None]]] = deque()
        self._outcomes: dict[Path, _Outcome] = {}
        self._preparing: dict[Path, threading.Lock] = {}
        self._guard = threading.Lock()

    def prepare(self, path: Path) -> None:
        """Do in the calling thread what takes long, so that nobody's tokens wait for it.

        Several threads do it once, and one that failed is tried again. It raises nothing: ``open`` tells what came of
        it.
        """
        if self.is_prepared(path):
            return
        with self._guard:
            alone = self._preparing.setdefault(path, threading.Lock())
        with alone:
            if self.is_prepared(path):
                return
            stamp, started = _stamp(path), time.monotonic()
            error: LocalLLMError | ValueError | None = None
            try:
                self._backend.open_adapter(path)
            except (LocalLLMError, ValueError) as found:
                error = found
            self._outcomes[path] = _Outcome(stamp, time.monotonic() - started, error)

    def is_prepared(self, path: Path) -> bool:
        """Whether it is in memory, so that ``prepare`` has nothing to do."""
        outcome = self._outcomes.get(path)
        return outcome is not None and outcome.error is None

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
        if path not in self._opened:
            outcome = self._outcomes.get(path)
            if outcome is None or (outcome.error is not None and outcome.stamp != stamp):
                self.prepare(path)
                outcome = self._outcomes[path]
            if outcome.error is not None:
                raise outcome.error
            self._opened.add(path)
            self._tell(path, outcome.seconds)
        elif stamp and stamp != self._outcomes[path].stamp:
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
