"""Leaving in every way there is: the computing stops within one token, and nobody else notices."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable

import pytest

from local_llms.callbacks import TokenCallback
from local_llms.engine import Engine, Stream
from local_llms.errors import CallbackError, DeadlineExceeded, RequestCancelled
from local_llms.testing.scripted import ScriptedBackend
from tests.unit.engine.engine_help import alone, ask, at_once, request, wait_quiet, wait_until

STEP = 0.03


def cancel(stream: Stream) -> None:
    iterator = iter(stream)
    next(iterator)
    stream.cancel()
    with pytest.raises(RequestCancelled):
        list(iterator)


def break_the_loop(stream: Stream) -> None:
    for _ in stream:
        break


def drop_the_iterator(stream: Stream) -> None:
    iterator = iter(stream)
    next(iterator)
    del iterator


def leave_the_with_block(stream: Stream) -> None:
    with stream:
        next(iter(stream))


def raise_in_the_loop(stream: Stream) -> None:
    def read() -> None:
        for _ in stream:
            raise KeyError

    with pytest.raises(KeyError):
        read()


def cancel_from_another_thread(stream: Stream) -> None:
    thread = threading.Timer(3 * STEP, stream.cancel)
    thread.start()
    with pytest.raises(RequestCancelled):
        stream.result()
    thread.join()


@pytest.mark.parametrize(
    "leave",
    [cancel, break_the_loop, drop_the_iterator, leave_the_with_block, raise_in_the_loop, cancel_from_another_thread],
)
def test_leaving_stops_the_computing_within_one_token(serve, leave: Callable[[Stream], None]) -> None:
    engine = serve(step_seconds=STEP)
    stream = ask(engine, "hello", 400)
    leave(stream)
    count = len(engine.backend.decodes)
    time.sleep(4 * STEP)
    assert len(engine.backend.decodes) - count <= 1
    wait_quiet(engine)
    assert engine.stats().cancelled == 1
    with pytest.raises(RequestCancelled):
        stream.result()


@pytest.mark.parametrize("read", [0, 2])
@pytest.mark.parametrize("cycle", [False, True])
def test_dropping_the_stream_stops_the_computing_within_one_token(serve, read: int, cycle: bool) -> None:
    engine = serve(step_seconds=STEP)
    stream: Stream | None = ask(engine, "hello", 400)
    for _ in range(read):
        next(iter_once(stream))
    if cycle:
        stream.itself = stream
    wait_until(lambda: engine.backend.decodes, "it computes")
    stream = None
    if cycle:
        gc.collect()
    count = len(engine.backend.decodes)
    time.sleep(4 * STEP)
    assert len(engine.backend.decodes) - count <= 1
    wait_quiet(engine)


def iter_once(stream: Stream):
    """Tokens read without the stream's own iterator, which would cancel when it is dropped."""
    while (event := stream._channel.next_event()) is None:
        time.sleep(0.001)
    yield event


async def cancel_the_task_that_reads(engine: Engine) -> None:
    arrived = asyncio.Event()

    async def read() -> None:
        async for _ in ask(engine, "hello", 400):
            arrived.set()

    task = asyncio.create_task(read())
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancel_the_task_that_waits(engine: Engine) -> None:
    task = asyncio.create_task(ask(engine, "hello", 400).aresult())
    await asyncio.sleep(3 * STEP)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def wait_for_less(engine: Engine) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ask(engine, "hello", 400).aresult(), 3 * STEP)


async def break_an_async_loop(engine: Engine) -> None:
    async for _ in ask(engine, "hello", 400):
        break
    await asyncio.sleep(0.001)


async def leave_an_async_with_block(engine: Engine) -> None:
    async with ask(engine, "hello", 400) as stream:
        async for _ in stream:
            break


async def a_deadline(engine: Engine) -> None:
    with pytest.raises(DeadlineExceeded):
        await ask(engine, "hello", 400, deadline=time.monotonic() + 3 * STEP).aresult()


async def a_deadline_in_a_loop(engine: Engine) -> None:
    with pytest.raises(DeadlineExceeded):
        async for _ in ask(engine, "hello", 400, deadline=time.monotonic() + 3 * STEP):
            pass


async def one_of_a_group_fails(engine: Engine) -> None:
    async def fail() -> None:
        await asyncio.sleep(3 * STEP)
        raise KeyError

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ask(engine, "hello", 400).aresult())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await both()


@pytest.mark.parametrize(
    "leave",
    [
        cancel_the_task_that_reads,
        cancel_the_task_that_waits,
        wait_for_less,
        break_an_async_loop,
        leave_an_async_with_block,
        a_deadline,
        a_deadline_in_a_loop,
        one_of_a_group_fails,
    ],
)
async def test_leaving_stops_the_computing_within_one_token_async(
    serve, leave: Callable[[Engine], Awaitable[None]]
) -> None:
    engine = serve(step_seconds=STEP)
    await leave(engine)
    count = len(engine.backend.decodes)
    await asyncio.sleep(4 * STEP)
    assert len(engine.backend.decodes) - count <= 1
    wait_quiet(engine)
    stats = engine.stats()
    assert stats.cancelled + stats.failed == 1


def test_the_others_in_the_batch_do_not_notice(serve) -> None:
    engine = serve(step_seconds=0.002)
    others = [ask(engine, f"other {number}", 60) for number in range(4)]
    leaving = [ask(engine, f"leaving {number}", 400) for number in range(4)]
    for stream in leaving:
        break_the_loop(stream)
    assert [other.result().text for other in others] == [alone(f"other {number}", 60) for number in range(4)]


def test_a_long_step_for_nobody_else_is_interrupted(serve) -> None:
    engine = serve(step_seconds=30)
    both = [ask(engine, "hello", 5), ask(engine, "world", 5)]
    wait_until(lambda: engine._worker._decoding, "it computes")
    both[0].cancel()
    both[1].cancel()
    wait_quiet(engine)
    assert engine.backend.decodes == []
    engine.backend._step_seconds = 0.0
    assert ask(engine, "hello", 5).result().text == alone("hello", 5)


class Counting(ScriptedBackend):
    """Counts the times it was interrupted."""

    interrupts = 0

    def interrupt(self) -> None:
        self.interrupts += 1
        super().interrupt()


def test_a_step_that_serves_somebody_else_is_not_interrupted(serve) -> None:
    engine = serve(kind=Counting, step_seconds=0.02)
    stays = ask(engine, "stays", 400)
    for _ in range(5):
        break_the_loop(ask(engine, "leaves", 400))
    assert stays.completion is None, "it was to run until here"
    assert engine.backend.interrupts == 0
    engine.backend._step_seconds = 0.0
    assert stays.result().text == alone("stays", 400)


class Slow(ScriptedBackend):
    """An interrupt that takes its time: the step of 0.05 s that it was meant for is over by then."""

    def interrupt(self) -> None:
        time.sleep(0.08)
        super().interrupt()


def test_an_interrupt_that_comes_late_hits_nobody_else(serve) -> None:
    engine = serve(kind=Slow, step_seconds=0.05)
    for _ in range(3):
        leaves = ask(engine, "leaves", 400)
        wait_until(lambda: engine._worker._decoding, "it computes")
        stays = ask(engine, "stays", 3)
        embeds = engine.embed([[1]])
        leaves.cancel()
        assert stays.result().text == alone("stays", 3)
        assert embeds.result(timeout=20).shape == (1, 8)
    assert engine.stats().failed == 0


def test_cancelling_what_is_not_under_way_does_nothing(serve) -> None:
    engine = serve(max_parallel=1, step_seconds=0.005)
    done = ask(engine, "done", 3)
    done.result()
    running = ask(engine, "running", 400)
    queued = [ask(engine, f"queued {number}", 10) for number in range(3)]
    queued[1].cancel()
    queued[1].cancel()
    done.cancel()
    engine.backend._step_seconds = 0.0
    assert running.result().text == alone("running", 400)
    assert queued[0].result().text == alone("queued 0", 10)
    assert queued[2].result().text == alone("queued 2", 10)
    assert done.result().text == alone("done", 3)
    with pytest.raises(RequestCancelled):
        list(queued[1])
    assert engine.stats().cancelled == 1


def test_what_a_cancelled_request_computed_is_used_again(serve) -> None:
    engine = serve()
    text = "a long beginning that was computed already"
    break_the_loop(ask(engine, text, 400))
    wait_quiet(engine)
    assert ask(engine, text, 3).result().usage.cached_prompt_tokens == len(text)


def test_one_that_waits_for_the_prefix_of_a_cancelled_one_goes_on(serve) -> None:
    engine = serve(step_seconds=0.01, batch_tokens=16)
    text = "a long beginning that both of them share: "
    first = ask(engine, f"{text}1", 50)
    second = ask(engine, f"{text}2", 5)
    wait_until(lambda: engine.backend.decodes, "the first is being read")
    first.cancel()
    assert second.result().text == alone(f"{text}2", 5)


def test_one_that_is_cancelled_before_the_engine_has_seen_it(serve) -> None:
    # In the worst moment: the engine has taken in what arrived, and is going through the cancelled.
    meanwhile: list[Stream] = []

    class Watched(ScriptedBackend):
        def free(self, sequence: int) -> None:
            super().free(sequence)
            if not meanwhile:
                meanwhile.append(ask(engine, "in between", 400))
                meanwhile[0].cancel()

    engine: Engine = serve(kind=Watched, step_seconds=0.01)
    ask(engine, "hello", 3).result()
    stream = ask(engine, "hello", 400)
    wait_until(lambda: len(engine.backend.decodes) > 4, "it computes")
    stream.cancel()
    wait_quiet(engine)
    assert meanwhile
    assert engine.stats().cancelled == 2
    assert not any(chunk.tokens[-1] == ord("n") for decode in engine.backend.decodes for chunk in decode)


def test_leaving_while_preempted(serve) -> None:
    engine = serve(cache_tokens=100, step_seconds=0.002)
    with at_once(engine):
        old = ask(engine, "old", 90)
        young = ask(engine, "young", 90)
    wait_until(lambda: engine.stats().preemptions, "the young one is preempted")
    young.cancel()
    assert old.result().text == alone("old", 90)


def test_leaving_never_waits_for_a_lock(serve) -> None:
    # The garbage collector may drop a stream in a thread that holds the engine's locks.
    engine = serve(step_seconds=0.01)
    stream = ask(engine, "hello", 400)
    with engine._worker._computing:
        stream.cancel()
    wait_quiet(engine)
    assert engine.stats().cancelled == 1


def test_dropping_a_stream_in_the_engines_thread(serve) -> None:
    # The garbage collector may find a dropped stream while the engine hands a token to that very stream.
    engine = serve()
    stream: Stream | None = ask(engine, "hello", 200)
    keep = [stream]
    stream._channel.call_when_ready(keep.clear, for_tokens=True)
    channel = stream._channel
    stream = None
    wait_until(lambda: channel.outcome is not None, "the stream has ended")
    wait_quiet(engine)
    assert not keep


def test_nothing_is_held_of_a_request_that_was_cancelled_when_it_had_ended(serve) -> None:
    class Failing(TokenCallback):
        def on_token(self, event) -> None:
            raise KeyError("broken")

    engine = serve()
    stream = engine.submit(request("hello", 5), observers=[Failing()])
    channel = weakref.ref(stream._channel)
    wait_quiet(engine)
    with pytest.raises(CallbackError):
        stream.result()
    del stream
    gc.collect()
    assert channel() is None
