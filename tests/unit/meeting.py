"""Two things that tests wait for instead of measuring time: that an event loop goes on, and that requests meet.

Both are given to a scripted backend as ``fail_on``, which is asked before every decode; they fail none.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sized
from types import TracebackType
from typing import Self

PATIENCE = 20.0


class Heart:
    """Beats as often as the event loop comes around, inside ``async with``.

    ``goes_on``, called in another thread, waits until it has. Where the loop waits for that thread it never does, and
    that is an AssertionError.
    """

    def __init__(self) -> None:
        self._beats = 0
        self._task: asyncio.Task[None] | None = None
        self.longest = 0.0
        """Seconds of the processor that the loop's thread has taken between two beats, at most."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _beat(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            self._beats += 1
            now = time.thread_time()
            self.longest, last = max(self.longest, now - last), now

    def goes_on(self, *_: object) -> bool:
        wanted, end = self._beats + 2, time.monotonic() + PATIENCE
        while self._beats < wanted:
            assert time.monotonic() < end, "the event loop is held up"
            time.sleep(0.001)
        return False


class Meeting:
    """Holds every decode up for a while, until one serves ``count`` requests, however late they come."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pause = 0.02

    def __call__(self, chunks: Sized) -> bool:
        if len(chunks) >= self.count:
            self.count = 0
        elif self.count:
            time.sleep(self._pause)
            self._pause = min(2 * self._pause, 1.0)
        return False
