"""What the tests of the engine share: prompts, the answers to expect, and the check that nothing was left behind."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from local_llms.engine import Engine, Request, Stream
from local_llms.testing.scripted import BOS, EOS, echo_script
from local_llms.types import SamplingParams

GREEDY = {"temperature": 0.0}
OF_A_REQUEST = ("logprobs", "top_logprobs", "deadline", "adapter", "score")


def ids(text: str) -> tuple[int, ...]:
    return (BOS, *text.encode())


def alone(text: str, count: int) -> str:
    """What the scripted backend answers, greedily, to a prompt of its own: no engine, no batch, no cache."""
    tokens = list(ids(text))
    for _ in range(count):
        tokens.append(echo_script(tokens))
    return bytes(tokens[-count:]).decode()


def request(text: str = "hello", count: int | None = 20, **options: object) -> Request:
    """A greedy request for ``count`` tokens; other options are those of Request and SamplingParams."""
    outer = {name: options.pop(name) for name in OF_A_REQUEST if name in options}
    params = SamplingParams(**{**GREEDY, "max_tokens": count, **options})
    return Request(ids(text), params, frozenset({EOS}), **outer)


def ask(engine: Engine, text: str = "hello", count: int | None = 20, **options: object) -> Stream:
    return engine.submit(request(text, count, **options))


@contextmanager
def at_once(engine: Engine) -> Iterator[None]:
    """What this thread asks for inside the block reaches the engine at its end, all at once; no step begins in it."""
    with engine._worker._changed:
        yield


def wait_until(condition, what: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.002)


def wait_quiet(engine: Engine, seconds: float = 20.0) -> None:
    """Wait until nothing is under way, and check that nothing was left behind."""
    worker, backend = engine._worker, engine.backend

    def quiet() -> bool:
        # Its thread sleeps, and nobody has woken it: whatever it had to do is done to the end.
        with worker._changed:
            return bool(worker._changed._waiters)

    wait_until(lambda: quiet() or engine.closed, "the engine is quiet", seconds)
    if engine.closed:
        return
    stats = engine.stats()
    assert (stats.running, stats.waiting) == (0, 0)
    assert stats.cache_tokens_used == backend.cells_used
    assert set(backend.sequences) == set(worker._scheduler._kept), "a sequence was left behind"
    assert stats.kept_prefixes == len(backend.sequences)
