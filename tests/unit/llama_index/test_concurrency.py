"""Requests decode together, an event loop never waits for the model, and nobody's answer is computed for nothing."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate

from local_llms.errors import EngineBusy
from local_llms.llama_index import LocalEmbedding, LocalLLM
from tests.unit.meeting import Heart, Meeting

STEP = 0.005


def running(llm: LocalLLM) -> int:
    stats = llm.loaded().stats()
    return stats.running + stats.waiting


def left(llm: LocalLLM) -> int:
    """How many requests were cancelled; none came to its end."""
    stats = llm.loaded().stats()
    assert stats.finished == 0
    return stats.cancelled


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(STEP)


async def auntil(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(STEP)


@pytest.fixture
def endless(scripted):
    """A model that never ends by itself, on which nothing runs."""
    return LocalLLM(model=scripted(None, step_seconds=STEP).path, template="plain", max_tokens=1500)


def test_many_threads_decode_together(scripted):
    meeting = Meeting(0)
    model = scripted("A rather long answer.", fail_on=meeting)
    llm = LocalLLM(model=model.path, template="chatml")
    llm.complete("Load.")
    meeting.count = 8
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(llm.complete(f"Question {n}").text)) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["A rather long answer."] * 8
    assert max(len(chunks) for chunks in model.backend.decodes) == 8


async def test_many_tasks_decode_together_without_threads(scripted):
    meeting = Meeting(0)
    model = scripted("A rather long answer.", fail_on=meeting)
    llm = LocalLLM(model=model.path, template="chatml")
    await llm.acomplete("Load.")
    meeting.count = 8
    before = set(threading.enumerate())
    tasks = [asyncio.create_task(llm.achat([ChatMessage(content=f"Question {n}")])) for n in range(8)]
    seen = set(before)
    while not all(task.done() for task in tasks):
        seen |= set(threading.enumerate())
        await asyncio.sleep(0.001)
    assert {task.result().message.content for task in tasks} == {"A rather long answer."}
    assert max(len(chunks) for chunks in model.backend.decodes) == 8
    assert seen == before


async def test_the_event_loop_does_not_wait(scripted):
    prompt = PromptTemplate("Hi")
    async with Heart() as heart:
        model = scripted("An answer.", fail_on=heart.goes_on, on_load=heart.goes_on)
        # Each object loads for itself at its first use; the events of a call tell of the model before it is loaded.
        for number in range(4):
            llm = LocalLLM(model=model.path, template="chatml", max_parallel=number + 1, max_tokens=2)
            if number == 0:
                await llm.apredict(prompt)
            elif number == 1:
                assert [token async for token in await llm.astream(prompt)]
            elif number == 2:
                await llm.acomplete("Hi")
            else:
                assert [piece async for piece in await llm.astream_chat([ChatMessage(content="Hi")])]
        await LocalEmbedding(model=model.path).aget_text_embedding("Hi")
    assert len(model.loaded) == 5


async def test_the_event_loop_does_not_wait_for_a_reload(scripted):
    async with Heart() as heart:
        model = scripted("An answer.", on_load=heart.goes_on)
        llm = LocalLLM(model=model.path, template="chatml", idle_unload=0.1)
        embedding = LocalEmbedding(model=model.path, idle_unload=0.1, max_parallel=2)
        await asyncio.gather(llm.acomplete("Hi"), embedding.aget_text_embedding("Hi"))
        await auntil(lambda: all(backend._closed for backend in model.loaded))
        before = len(model.loaded)
        await llm.acomplete("Hi")
        await embedding.aget_text_embedding("Hi")
        assert len(model.loaded) == before + 2


def test_leaving_a_stream_stops_the_computing(endless):
    for _ in endless.stream_complete("Hi"):
        break
    gc.collect()
    until(lambda: running(endless) == 0)
    stream = endless.stream_chat([ChatMessage(content="Hi")])
    next(stream)
    assert running(endless) == 1
    stream.close()
    until(lambda: running(endless) == 0)
    assert left(endless) == 2


def test_a_stream_that_nobody_reads_is_dropped(endless):
    stream = endless.stream_complete("Hi")
    until(lambda: running(endless) == 1)
    del stream
    gc.collect()
    until(lambda: running(endless) == 0)
    assert left(endless) == 1


async def test_leaving_an_async_stream_stops_the_computing(endless):
    async for _ in await endless.astream_complete("Hi"):
        break
    await auntil(lambda: running(endless) == 0)
    stream = await endless.astream_chat([ChatMessage(content="Hi")])
    await anext(stream)
    await stream.aclose()
    await auntil(lambda: running(endless) == 0)
    unread = await endless.astream_chat([ChatMessage(content="Hi")])
    await auntil(lambda: running(endless) == 1)
    del unread
    gc.collect()
    await auntil(lambda: running(endless) == 0)
    assert left(endless) == 3


@pytest.mark.parametrize("form", ["acomplete", "achat", "apredict"])
async def test_cancelling_a_task_stops_the_computing(endless, form):
    what = {"acomplete": "Hi", "achat": [ChatMessage(content="Hi")], "apredict": PromptTemplate("Hi")}[form]
    task = asyncio.create_task(getattr(endless, form)(what))
    await auntil(lambda: running(endless) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await auntil(lambda: running(endless) == 0)
    assert left(endless) == 1


async def test_a_cancelled_reader_of_a_stream_stops_the_computing(endless):
    async def read() -> None:
        async for _ in await endless.astream_complete("Hi"):
            pass

    task = asyncio.create_task(read())
    await auntil(lambda: running(endless) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await auntil(lambda: running(endless) == 0)
    assert left(endless) == 1


async def test_a_full_queue_says_so(scripted):
    model = scripted(None, step_seconds=STEP)
    llm = LocalLLM(model=model.path, template="plain", max_parallel=1, max_queue=1, max_tokens=1500)
    streams = [llm.stream_complete("Hi")]
    next(streams[0])
    streams.append(llm.stream_complete("Hi"))
    with pytest.raises(EngineBusy):
        llm.stream_complete("Hi")
    with pytest.raises(EngineBusy):
        await llm.achat([ChatMessage(content="Hi")])
    for stream in streams:
        stream.close()
    until(lambda: running(llm) == 0)
    assert llm.complete("Hi", max_tokens=2).raw["usage"]["completion_tokens"] == 2


def test_wrappers_share_the_weights(scripted):
    model = scripted()
    wrappers = [LocalLLM(model=model.path, template="chatml", temperature=n / 10) for n in range(20)]
    for wrapper in wrappers:
        wrapper.complete("Hi")
    LocalEmbedding(model=model.path).get_text_embedding("Hi")
    assert len(model.loaded) == 1
