"""An engine on the scripted backend, closed after the test, and looked at before."""

from collections.abc import Callable, Iterator

import pytest

from local_llms.engine import Engine
from local_llms.testing.scripted import ScriptedBackend
from tests.unit.engine.engine_help import wait_quiet


@pytest.fixture
def serve() -> Iterator[Callable[..., Engine]]:
    """``serve(max_parallel=…, max_queue=…, kind=…, **options of the backend)``: an engine."""
    engines: list[Engine] = []

    def start(
        *, max_parallel: int = 8, max_queue: int = 256, kind: type[ScriptedBackend] = ScriptedBackend, **options: object
    ) -> Engine:
        engines.append(Engine(kind(**options), max_parallel=max_parallel, max_queue=max_queue))
        return engines[-1]

    yield start
    try:
        for engine in engines:
            wait_quiet(engine)
    finally:
        for engine in engines:
            engine.close()
            assert not engine._worker._thread.is_alive()
