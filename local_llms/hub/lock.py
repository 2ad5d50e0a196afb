"""One process, and one thread of it, at a time."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_logger = logging.getLogger(__name__)


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock that the file ``path`` stands for; wait while someone else has it.

    The system lets go of it when its holder dies, however that happens. The file itself stays. Gives True; without
    ``wait``, False where someone else has the lock.
    """
    with path.open("a+b") as file:
        held = _try_lock(file.fileno())
        if not held and wait:
            _logger.info("Waiting for another process that holds %s", path)
            while not (held := _try_lock(file.fileno())):
                time.sleep(0.05)
        try:
            yield held
        finally:
            if held:
                _unlock(file.fileno())


if sys.platform == "win32":
    import msvcrt

    def _try_lock(number: int) -> bool:
        try:
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(number: int) -> None:
        msvcrt.locking(number, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(number: int) -> bool:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(number: int) -> None:
        fcntl.flock(number, fcntl.LOCK_UN)
