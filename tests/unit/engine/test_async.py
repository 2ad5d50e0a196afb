"""Streams on event loops, and read in unusual ways."""

import asyncio
import gc
import threading
import time

import pytest

from local_llms.engine import Engine, Stream
from local_llms.errors import RequestCancelled
from tests.unit.engine.engine_help import alone, ask, wait_quiet, wait_until
from tests.unit.meeting import Heart


async def read(stream: Stream) -> str:
    return "".join([event.text async for event in stream])


async def test_many_streams_on_one_loop(serve) -> None:
    engine = serve()
    streams = [ask(engine, f"{number}", 10 + number) for number in range(20)]
    texts = await asyncio.gather(*[read(stream) for stream in streams])
    assert texts == [alone(f"{number}", 10 + number) for number in range(20)]
    assert (await streams[3].aresult()).text == texts[3]


async def test_aresult(serve) -> None:
    engine = serve()
    completions = await asyncio.gather(*[ask(engine, f"{number}", 10).aresult() for number in range(20)])
    assert [completion.text for completion in completions] == [alone(f"{number}", 10) for number in range(20)]


def test_many_loops_in_many_threads(serve) -> None:
    engine = serve()
    texts: dict[int, list[str]] = {}

    async def main(number: int) -> list[str]:
        return await asyncio.gather(*[read(ask(engine, f"{number} {turn}", 15)) for turn in range(3)])

    def run(number: int) -> None:
        texts[number] = asyncio.run(main(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {n: [alone(f"{n} {turn}", 15) for turn in range(3)] for n in range(6)}


def test_one_loop_after_another(serve) -> None:
    engine = serve(step_seconds=0.002)
    stream = ask(engine, "hello", 40)

    async def some(count: int) -> str:
        text = ""
        events = stream.__aiter__()
        for _ in range(count):
            text += (await anext(events)).text
        keep.append(events)  # dropping it would cancel
        return text

    keep: list[object] = []
    loops = [asyncio.new_event_loop() for _ in range(3)]
    parts = [loop.run_until_complete(some(10)) for loop in loops]
    rest = stream.result().text
    assert rest.startswith("".join(parts))
    assert rest == alone("hello", 40)
    for events, loop in zip(keep, loops, strict=True):
        loop.run_until_complete(events.aclose())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@pytest.mark.parametrize("result", [False, True])
def test_a_loop_that_is_closed_under_its_reader(serve, result: bool) -> None:
    engine = serve(step_seconds=0.01, context_length=4096)
    stream = ask(engine, "hello", 100 if result else 4000)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)

    async def wait() -> None:
        await stream.aresult() if result else await read(stream)

    async def until_it_waits() -> None:
        wakes = stream._channel._wakes_for_outcome if result else stream._channel._wakes_for_tokens
        async with asyncio.timeout(20):
            while not wakes:
                await asyncio.sleep(0)

    task = loop.create_task(wait())
    loop.run_until_complete(until_it_waits())
    loop.close()
    # A reader of tokens is missed at the next one; one that waits for the whole answer, when that is there.
    wait_until(lambda: stream._channel.outcome is not None, "the stream has ended")
    if not result:
        with pytest.raises(RequestCancelled):
            stream.result()
    task._log_destroy_pending = False
    coroutine = task.get_coro()
    del task
    coroutine.close()
    gc.collect()
    wait_quiet(engine)
    assert ask(engine, "after", 3).result().text == alone("after", 3)


async def test_the_loop_is_not_held_up(serve) -> None:
    async with Heart() as heart:
        engine = serve(context_length=4000, cache_tokens=20_000, fail_on=heart.goes_on)
        await asyncio.gather(*[read(ask(engine, f"{number} {'x' * 300}", 40)) for number in range(8)])
    # Time of the processor, not of the wall: other processes and the engine's own thread do not count.
    assert heart.longest < 0.1


async def test_cancelling_reaches_a_task_that_is_woken_at_the_same_time(serve) -> None:
    # A token and a cancellation in one turn of the loop: the cancellation must not get lost.
    engine = serve(step_seconds=0.005)
    for turn in range(20):
        stream = ask(engine, "hello", 400, deadline=time.monotonic() + 60)
        task = asyncio.create_task(read(stream))
        while not stream._channel._wakes_for_tokens:
            await asyncio.sleep(0)
        while stream._channel._wakes_for_tokens:
            time.sleep(0.0005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
        assert stream._channel.outcome is not None, turn


async def test_several_wait_for_one_answer(serve) -> None:
    engine = serve(step_seconds=0.002)
    stream = ask(engine, "hello", 20)
    in_thread = asyncio.to_thread(stream.result)
    completions = await asyncio.gather(stream.aresult(), stream.aresult(), in_thread)
    assert {completion.text for completion in completions} == {alone("hello", 20)}


def test_two_threads_read_one_stream(serve) -> None:
    engine = serve(step_seconds=0.001)
    stream = ask(engine, "hello", 100)
    events: list = []
    threads = [threading.Thread(target=lambda: events.extend(iter(stream))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a reader was never woken"
    events.sort(key=lambda event: event.index)
    assert "".join(event.text for event in events) == alone("hello", 100)


def test_a_stream_read_twice_goes_on_and_then_is_empty(serve) -> None:
    engine = serve()
    stream = ask(engine, "hello", 10)
    first = iter(stream)
    texts = [next(first).text for _ in range(4)]
    second = [event.text for event in stream]
    assert "".join(texts + second) == alone("hello", 10)
    assert list(stream) == []
    assert list(first) == []


def test_result_before_and_after_reading(serve) -> None:
    engine = serve()
    stream = ask(engine, "hello", 10)
    assert stream.result().text == alone("hello", 10)
    assert "".join(event.text for event in stream) == alone("hello", 10)
    assert stream.result() is stream.result()


async def test_aresult_before_and_after_reading(serve) -> None:
    engine = serve()
    stream = ask(engine, "hello", 10)
    assert (await stream.aresult()).text == alone("hello", 10)
    assert await read(stream) == alone("hello", 10)
    assert await stream.aresult() is stream.result()


async def test_embeddings_can_be_awaited_and_cancelled(serve) -> None:
    engine: Engine = serve(step_seconds=0.01, max_sequences=1)
    assert (await asyncio.wrap_future(engine.embed([[1], [2]]))).shape == (2, 8)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.wrap_future(engine.embed([[1]] * 5000)), 0.05)
    wait_quiet(engine)
