"""Turns in an event loop: what many tasks do at the same moment is done one after the other, with the loop in between.

Preparing a request takes a millisecond or two of the loop's own time. Fifty that are started together would take it all
in one pass, and hold up everything else that the loop serves.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary


@dataclass(slots=True)
class _Line:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    tasks: int = 0


class Turns:
    """``await turns.next()`` waits until the loop has done a round of its other work since the turn before.

    May be shared by event loops, each with turns of its own.
    """

    def __init__(self) -> None:
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = WeakKeyDictionary()

    async def next(self) -> None:
        """Wait for this task's turn; without a competitor that is one round of the loop. May be cancelled."""
        loop = asyncio.get_running_loop()
        line = self._lines.setdefault(loop, _Line())
        line.tasks += 1
        try:
            async with line.turn:
                await asyncio.sleep(0)
        finally:
            line.tasks -= 1
            if not line.tasks:
                # A lock that somebody waited for holds its loop, and would keep it for ever.
                self._lines.pop(loop, None)
