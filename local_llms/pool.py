"""The loaded models of this process: equal weights and loading options share one engine."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from local_llms import backends
from local_llms.backends.base import Backend, LoadOptions
from local_llms.engine import Engine
from local_llms.errors import EngineClosed, EngineForked, ModelFileError
from local_llms.logs import log_event

_logger = logging.getLogger("local_llms")


@dataclass(frozen=True, slots=True)
class Weights:
    """What makes two loaded models the same: the file as it is now, and how it is loaded.

    ``path`` is the file itself. ``name`` is the path that was given: a link to it, as in the hub's cache, has the name
    that tells the kind of the file and the other parts of a model in several.
    """

    path: Path
    name: Path = field(compare=False)
    modified: int
    size: int
    backend: str | None
    options: LoadOptions
    max_queue: int
    idle_unload: float | None

    @classmethod
    def of(
        cls, path: Path, backend: str | None, options: LoadOptions, max_queue: int, idle_unload: float | None
    ) -> Weights:
        """Look at a file. Raises ModelFileError where there is none."""
        try:
            real = path.resolve(strict=True)
            status = real.stat()
        except (OSError, RuntimeError) as error:
            raise ModelFileError(f"{path} cannot be read: {error}.") from error
        return cls(real, path, status.st_mtime_ns, status.st_size, backend, options, max_queue, idle_unload)


class SharedEngine:
    """An engine and the number of handles that hold it. Loaded at the first use, and again after an idle unload."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.handles = 0
        self.backend_reason = ""
        self._engine: Engine | None = None
        self._users = 0
        self._lock = threading.RLock()
        self._reaper: threading.Thread | None = None
        self._closed = False
        self._process = os.getpid()

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory now."""
        engine = self._engine
        return engine is not None and not engine.closed

    @contextmanager
    def use(self) -> Iterator[Engine]:
        """The engine, loaded where it is not; it is not unloaded inside the block.

        Raises what loading raises, EngineClosed once the last handle was closed, or EngineForked in a forked child.
        """
        # First: a fork may have left the lock with a thread that is not there any more.
        if os.getpid() != self._process:
            raise EngineForked(
                "The model belongs to the process that this one was forked from. Load it here with load_model(), or "
                'start processes with the "spawn" method.'
            )
        with self._lock:
            engine = self._load()
            self._users += 1
        try:
            yield engine
        finally:
            with self._lock:
                self._users -= 1

    def close(self) -> None:
        """Free the weights for good; in a forked child, which has none, nothing happens."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._closed = True
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
            self._tell("model freed", {"reason": "closed"})

    def _load(self) -> Engine:
        if self._closed:
            raise EngineClosed("The model was closed. Load it again with load_model().")
        if self._engine is None or self._engine.closed:
            weights = self.weights
            module, self.backend_reason = backends.choose(weights.name, weights.backend)
            started = time.monotonic()
            backend = _interruptibly(lambda: module.load(weights.name, weights.options))
            self._tell("model loaded", {"backend": module.NAME, "seconds": time.monotonic() - started})
            self._engine = Engine(backend, max_parallel=weights.options.max_parallel, max_queue=weights.max_queue)
            if weights.idle_unload is not None:
                self._reaper = threading.Thread(
                    target=self._unload_when_idle, args=(weights.idle_unload,), name="local-llms-idle", daemon=True
                )
                self._reaper.start()
        return self._engine

    def _tell(self, event: str, fields: dict[str, object]) -> None:
        log_event(_logger, logging.INFO, event, {"path": str(self.weights.name), **fields})

    def _unload_when_idle(self, seconds: float) -> None:
        while True:
            time.sleep(min(seconds / 4, 5.0))
            with self._lock:
                engine = self._engine
                if engine is None or engine.closed:
                    return
                if self._users == 0 and engine.idle_seconds() >= seconds:
                    self._engine = None
                    break
        engine.close()
        self._tell("model freed", {"reason": f"idle for {seconds} seconds"})


def _interruptibly(load: Callable[[], Backend]) -> Backend:
    """What ``load`` gives; in the main thread Ctrl-C ends the wait, and what was being loaded is closed when it comes.

    Libraries call Python back while they load, to tell about it. In the main thread the interpreter would raise
    KeyboardInterrupt in such a call, where nobody can catch it, and go on. So they load in another one.
    """
    if threading.current_thread() is not threading.main_thread():
        return load()
    loaded: Future[Backend] = Future()

    def run() -> None:
        try:
            loaded.set_result(load())
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            loaded.set_exception(error)

    # No daemon: the interpreter waits for it, since a thread in native code must end before that does.
    thread = threading.Thread(target=run, name="local-llms-load")
    try:
        # Starting waits until the thread runs, so that Ctrl-C may come in here too.
        thread.start()
        return loaded.result()
    except BaseException:
        loaded.add_done_callback(_close)
        raise


def _close(loaded: Future[Backend]) -> None:
    if loaded.exception() is None:
        loaded.result().close()


class Pool:
    """Every shared engine of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: dict[Weights, SharedEngine] = {}
        self._dropped: SimpleQueue[SharedEngine | None] = SimpleQueue()
        self._tidier: threading.Thread | None = None
        self._prepared = False

    def acquire(self, weights: Weights) -> SharedEngine:
        """The engine of these weights, one handle more; it is loaded before this returns."""
        with self._lock:
            self._prepare()
            shared = self._engines.setdefault(weights, SharedEngine(weights))
            shared.handles += 1
        try:
            with shared.use():
                pass
        except BaseException:
            self.release(shared)
            raise
        return shared

    def release(self, shared: SharedEngine) -> None:
        """One handle less; the weights are freed with the last one."""
        with self._lock:
            shared.handles -= 1
            last = shared.handles == 0
            if last and self._engines.get(shared.weights) is shared:
                del self._engines[shared.weights]
        if last:
            shared.close()

    def drop(self, shared: SharedEngine) -> None:
        """Release soon, in a thread of the pool's: for the garbage collector, which calls inside any other call.

        A lock taken here might be held already by the very call that was interrupted.
        """
        self._dropped.put(shared)

    def _tidy(self) -> None:
        for shared in iter(self._dropped.get, None):
            self.release(shared)

    def _prepare(self) -> None:
        if self._tidier is None:
            self._tidier = threading.Thread(target=self._tidy, name="local-llms-pool", daemon=True)
            self._tidier.start()
        if not self._prepared:
            # A thread in native code must end before the interpreter does; a forked child starts with nothing loaded.
            self._prepared = True
            atexit.register(self._close_all)
            os.register_at_fork(after_in_child=self._forget)

    def _close_all(self) -> None:
        if self._tidier is not None:
            self._dropped.put(None)
            self._tidier.join()
        for shared in list(self._engines.values()):
            shared.close()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._engines = {}
        self._dropped = SimpleQueue()
        self._tidier = None


pool = Pool()
"""The pool of this process."""
