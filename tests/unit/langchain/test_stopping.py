"""Whoever stops listening stops the computing; async asks hold up no event loop and use no thread."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from local_llms.errors import DecodeError, EngineClosed
from local_llms.langchain import ChatLocal, LocalEmbeddings
from local_llms.testing.scripted import ScriptedBackend, echo_script
from tests.unit.langchain.conftest import ANSWER, aeventually, eventually, idle, text, together
from tests.unit.meeting import Heart


@pytest.fixture
def endless(scripted):
    """A model that talks until its context is full."""
    return scripted(None, script=echo_script, step_seconds=0.005)


def check_cancelled(llm) -> None:
    handle = llm.loaded()
    assert eventually(lambda: idle(handle))
    assert (handle.stats().cancelled, handle.stats().finished) == (1, 0)


def decodes(model) -> int:
    return len(model.backend.decodes) if model.backends else 0


def test_leaving_a_stream(endless, kind):
    llm = kind(model=endless)
    for number, _ in enumerate(llm.stream("Hi")):
        if number == 3:
            break
    computed = decodes(endless)
    check_cancelled(llm)
    assert decodes(endless) - computed <= 1


def test_closing_a_stream(endless, kind):
    llm = kind(model=endless)
    stream = llm.stream("Hi")
    next(stream)
    stream.close()
    check_cancelled(llm)


async def test_leaving_an_async_stream(endless, kind):
    llm = kind(model=endless)
    stream = llm.astream("Hi")
    await anext(stream)
    await stream.aclose()
    check_cancelled(llm)


async def test_dropping_an_async_stream(endless, kind):
    llm = kind(model=endless)
    async for _ in llm.astream("Hi"):
        break
    gc.collect()
    handle = llm.loaded()
    await aeventually(lambda: idle(handle))
    check_cancelled(llm)


async def test_cancelling_a_task(endless, kind):
    llm = kind(model=endless)
    task = asyncio.create_task(llm.ainvoke("Hi"))
    await aeventually(lambda: decodes(endless))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    check_cancelled(llm)


async def test_cancelling_a_task_that_streams(endless, kind):
    llm = kind(model=endless)

    async def read():
        async for _ in llm.astream("Hi"):
            pass

    task = asyncio.create_task(read())
    await aeventually(lambda: decodes(endless))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    check_cancelled(llm)


async def test_cancelling_a_batch(endless, kind):
    llm = kind(model=endless)
    task = asyncio.create_task(llm.abatch([f"Question {number}" for number in range(6)]))
    await aeventually(lambda: together(endless) == 6)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    handle = llm.loaded()
    assert eventually(lambda: idle(handle))
    assert handle.stats().cancelled == 6


async def test_async_uses_no_thread(scripted, kind, monkeypatch):
    llm = kind(model=scripted(), max_parallel=8)
    llm.loaded()
    used = []
    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", lambda *call: used.append(call))
    before = set(threading.enumerate())
    answers = await asyncio.gather(*(llm.ainvoke("Hi") for _ in range(4)))
    pieces = [text(piece) async for piece in llm.astream("Hi")]
    answers += await llm.abatch(["Hi"] * 4)
    assert {text(answer) for answer in answers} == {"".join(pieces)} == {ANSWER}
    assert not used
    assert set(threading.enumerate()) <= before


async def test_the_event_loop_goes_on(scripted, kind):
    async with Heart() as heart:
        llm = kind(model=scripted(fail_on=heart.goes_on), max_tokens=4)
        llm.loaded()
        assert text(await llm.ainvoke("Hi")) == ANSWER[:4]
        assert "".join([text(piece) async for piece in llm.astream("Hi")]) == ANSWER[:4]


async def test_loading_does_not_hold_the_event_loop_up(scripted, kind):
    model = scripted()
    make = model.make
    async with Heart() as heart:
        model.make = lambda: heart.goes_on() or make()
        assert text(await kind(model=model).ainvoke("Hi")) == ANSWER


async def test_embedding_does_not_hold_the_event_loop_up(scripted):
    class Slow(ScriptedBackend):
        def embed(self, texts):
            heart.goes_on()
            return super().embed(texts)

    model = scripted()
    model.make = Slow
    embeddings = LocalEmbeddings(model=model)
    embeddings.loaded()
    async with Heart() as heart:
        assert len(await embeddings.aembed_documents(["a", "b"])) == 2


def test_one_failing_request_harms_no_other(scripted, kind):
    def holds_a_z(chunks):
        return any(122 in chunk.tokens for chunk in chunks)

    llm = kind(model=scripted("Hello", fail_on=holds_a_z))
    answers = llm.batch(["a", "z", "b"], return_exceptions=True)
    assert [text(answers[0]), text(answers[2])] == ["Hello", "Hello"]
    assert isinstance(answers[1], DecodeError)
    assert text(llm.invoke("Hi")) == "Hello"


def test_use_after_close(scripted, kind):
    model = scripted()
    llm = kind(model=model)
    llm.invoke("Hi")
    llm.close()
    llm.close()
    with pytest.raises(EngineClosed):
        llm.invoke("Hi")
    with pytest.raises(EngineClosed):
        list(llm.stream("Hi"))
    assert model.backend.closed


def test_a_context_manager(scripted, kind):
    model = scripted()
    with kind(model=model) as llm:
        assert text(llm.invoke("Hi")) == ANSWER
    with pytest.raises(EngineClosed):
        llm.invoke("Hi")


def test_dropping_the_object_frees_the_weights(scripted, kind):
    model = scripted()
    llm = kind(model=model)
    llm.invoke("Hi")
    del llm
    gc.collect()
    assert eventually(lambda: model.backend.closed)


def test_closing_ends_what_is_under_way(endless):
    llm = ChatLocal(model=endless)
    stream = llm.stream("Hi")
    next(stream)
    llm.close()
    with pytest.raises(EngineClosed):
        list(stream)
