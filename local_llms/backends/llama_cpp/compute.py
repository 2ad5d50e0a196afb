"""One thread of the process computes, for every model that is loaded.

llama.cpp's builds for the CPU share work out with OpenMP, whose runtime keeps a team of threads for each thread that
ever computed. As soon as the teams together have more threads than there are cores, GCC's runtime lets them sleep
instead of spin between two pieces of work, and a small model decodes at half its speed for as long as the threads live
(libgomp: ``gomp_throttled_spin_count_var``). A chat model and an embedding model in one process would be enough for
that. With one computing thread there is one team, and two models take turns instead of taking each other's cores.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

Result = TypeVar("Result")


class _Call:
    """A function to run, and a lock that opens when it has run."""

    __slots__ = ("done", "error", "function", "result")

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function
        self.result: object = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def run(self) -> None:
        try:
            self.result = self.function()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            self.error = error
        finally:
            self.done.release()


class _Computer:
    """The thread and its queue."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.calls: SimpleQueue[_Call] = SimpleQueue()
        threading.Thread(target=self._run, name="local-llms-compute", daemon=True).start()

    def _run(self) -> None:
        while True:
            self.calls.get().run()


_lock = threading.Lock()
_computers: list[_Computer] = []


def compute(function: Callable[[], Result]) -> Result:
    """Run a function in the computing thread, after whatever it has to do already; gives its result or its error."""
    call = _Call(function)
    _computer().calls.put(call)
    call.done.acquire()
    if call.error is not None:
        raise call.error
    return call.result  # type: ignore[return-value]


def _computer() -> _Computer:
    if not _computers or _computers[-1].process != os.getpid():
        with _lock:
            if not _computers or _computers[-1].process != os.getpid():
                _computers[:] = [_Computer()]
    return _computers[-1]
