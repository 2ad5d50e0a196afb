"""Turns in an event loop: what many tasks do at the same moment is done one after the other, with the loop in between.

Preparing a request takes a millisecond or two of the loop's own time. Fifty that are started together would take it all
in one pass, and hold up everything else that the loop serves.
"""

from __future__ import annotations

import asyncio
import threading
from weakref import WeakKeyDictionary


class Turns:
    """``await turns.next()`` waits until the loop has done a round of its other work since the turn before.

    May be shared by event loops, each with turns of its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def next(self) -> None:
        """Wait for this task's turn; without a competitor that is one round of the loop. May be cancelled."""
        loop = asyncio.get_running_loop()
        with self._lock:
            turn = self._loops.setdefault(loop, asyncio.Lock())
        async with turn:
            await asyncio.sleep(0)
