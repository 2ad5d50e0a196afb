"""The main promise: 64 streams at once, of threads and of tasks, a third of them cancelled at random."""

import asyncio
import random
import threading
import time

import pytest

from local_llms.engine import Engine
from local_llms.errors import LocalLLMError, RequestCancelled
from tests.unit.engine.engine_help import alone, ask, wait_quiet

STREAMS = 64
PREFIX = "a beginning that every third of them shares: "


class Case:
    """One stream: what it asks for, and after how many tokens it leaves, if it does."""

    def __init__(self, number: int, chance: random.Random) -> None:
        self.text = (PREFIX if number % 3 == 0 else "") + f"{number} " + "x" * chance.randrange(40)
        self.count = chance.randrange(1, 120)
        self.leaves_after = chance.randrange(self.count) if chance.random() < 1 / 3 else None
        self.delay = chance.random() * 0.3
        self.way = chance.choice(("break", "cancel", "task"))
        self.expected = alone(self.text, self.count)
        self.seen = ""
        self.ended = ""

    def read(self, engine: Engine) -> None:
        time.sleep(self.delay)
        stream = ask(engine, self.text, self.count)
        try:
            if self.leaves_after == 0:
                stream.cancel()
            for index, event in enumerate(stream, start=1):
                self.seen += event.text
                if index == self.leaves_after:
                    if self.way == "break":
                        self.ended = "left"
                        return
                    stream.cancel()
            self.ended = "done"
        except RequestCancelled:
            self.ended = "left"

    async def aread(self, engine: Engine) -> None:
        await asyncio.sleep(self.delay)
        stream = ask(engine, self.text, self.count)

        async def take() -> None:
            async for event in stream:
                self.seen += event.text
                if len(self.seen) == self.leaves_after:
                    if self.way == "break":
                        return
                    if self.way == "cancel":
                        stream.cancel()
                    else:
                        task.cancel()
            self.ended = "done"

        if self.leaves_after == 0:
            stream.cancel()
        task = asyncio.create_task(take())
        try:
            await task
        except (RequestCancelled, asyncio.CancelledError):
            self.ended = "left"
        self.ended = self.ended or "left"


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    "backend",
    [
        {"cache_tokens": 8192},
        {"cache_tokens": 250, "batch_tokens": 48, "step_seconds": 0.001},
        {"cache_tokens": 250, "batch_tokens": 48, "step_seconds": 0.001, "can_cut": False},
        {"cache_tokens": 8192, "step_seconds": 0.001, "max_sequences": 16},
    ],
    ids=["roomy", "crowded", "recurrent", "timed"],
)
def test_64_streams(serve, backend: dict, seed: int) -> None:
    chance = random.Random(seed)
    engine = serve(max_parallel=16, **backend)
    cases = [Case(number, chance) for number in range(STREAMS)]
    failures: list[BaseException] = []

    def run(work) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    async def tasks(group: list[Case]) -> None:
        await asyncio.gather(*[case.aread(engine) for case in group])

    sync, first, second = cases[:32], cases[32:48], cases[48:]
    works = [lambda case=case: case.read(engine) for case in sync]
    works += [lambda group=group: asyncio.run(tasks(group)) for group in (first, second)]
    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 60
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0.0))
    hanging = [case.text for case in cases if not case.ended]
    assert not any(thread.is_alive() for thread in threads), f"hanging: {hanging}"
    assert not failures
    for case in cases:
        assert case.expected.startswith(case.seen)
        if case.leaves_after is None:
            assert (case.ended, case.seen) == ("done", case.expected), case.text
        else:
            # A stream that was complete before its reader left is as good as read.
            assert case.ended == "left" or len(case.seen) >= case.leaves_after
    wait_quiet(engine)
    stats = engine.stats()
    assert stats.finished + stats.cancelled == STREAMS
    assert stats.failed == 0
    if backend["cache_tokens"] < 1000:
        assert stats.preemptions > 0


def test_errors_and_embeddings_in_the_middle_of_it_all(serve) -> None:
    bad = ord("!")
    engine = serve(
        max_parallel=8, cache_tokens=400, fail_on=lambda chunks: any(bad in chunk.tokens for chunk in chunks)
    )
    outcomes: dict[int, str] = {}

    def client(number: int) -> None:
        try:
            if number % 4 == 3:
                assert engine.embed([[number]] * 20).result(timeout=30).shape == (20, 8)
                outcomes[number] = "fine"
            else:
                text = ask(engine, f"{number}{'!' if number % 4 == 2 else ''}", 20).result().text
                outcomes[number] = "fine" if text == alone(f"{number}", 20) else text
        except LocalLLMError as error:
            outcomes[number] = type(error).__name__

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert outcomes == {number: "DecodeError" if number % 4 == 2 else "fine" for number in range(40)}
