"""Many inputs at once are decoded together, and one that fails harms no other."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate

from local_llms.errors import ContextOverflow, EngineBusy, LocalLLMError
from local_llms.langchain import ChatLocal, LocalLLM
from local_llms.testing.scripted import echo_script
from tests.unit.langchain.conftest import eventually, text, together
from tests.unit.meeting import Meeting

QUESTIONS = [f"Question {number}" for number in range(16)]


@pytest.fixture
def meeting() -> Meeting:
    """How many requests the model waits for at first: none."""
    return Meeting(0)


@pytest.fixture
def model(scripted, meeting):
    return scripted(None, script=echo_script, fail_on=meeting, cache_tokens=8192)


def make(kind, model, **options):
    return kind(model=model, temperature=0, max_tokens=24, **options)


@pytest.fixture
def alone(scripted) -> list[str]:
    """Each question's answer when nobody else asks."""
    llm = make(LocalLLM, scripted(None, script=echo_script))
    return [llm.invoke(question) for question in QUESTIONS]


def test_batch(meeting, model, kind, alone):
    meeting.count = 16
    answers = [text(answer) for answer in make(kind, model).batch(QUESTIONS)]
    assert together(model) == 16
    assert answers == alone


async def test_abatch(meeting, model, kind, alone):
    meeting.count = 16
    answers = [text(answer) for answer in await make(kind, model).abatch(QUESTIONS)]
    assert together(model) == 16
    assert answers == alone


def test_batch_as_completed(meeting, model, kind, alone):
    meeting.count = 16
    answers = {number: text(answer) for number, answer in make(kind, model).batch_as_completed(QUESTIONS)}
    assert together(model) == 16
    assert [answers[number] for number in range(16)] == alone


async def test_abatch_as_completed(meeting, model, kind):
    meeting.count = 16
    answers = {number: text(answer) async for number, answer in make(kind, model).abatch_as_completed(QUESTIONS)}
    assert together(model) == 16
    assert len(answers) == 16


def test_a_batch_of_a_chain(meeting, model, kind, alone):
    meeting.count = 16
    chain = PromptTemplate.from_template("Question {n}") | make(kind, model) | StrOutputParser()
    answers = chain.batch([{"n": number} for number in range(16)])
    assert together(model) == 16
    assert answers == alone


def test_generate_with_many_conversations(meeting, model, alone):
    meeting.count = 16
    result = make(ChatLocal, model).generate([[HumanMessage(question)] for question in QUESTIONS])
    assert together(model) == 16
    assert [generations[0].text for generations in result.generations] == alone
    assert len({run.run_id for run in result.run}) == 16


async def test_agenerate_with_many_conversations(meeting, model, alone):
    meeting.count = 16
    result = await make(ChatLocal, model).agenerate([[HumanMessage(question)] for question in QUESTIONS])
    assert together(model) == 16
    assert [generations[0].text for generations in result.generations] == alone


def test_generate_with_many_strings(meeting, model, alone):
    meeting.count = 16
    result = make(LocalLLM, model).generate(QUESTIONS)
    assert together(model) == 16
    assert [generations[0].text for generations in result.generations] == alone


def test_more_inputs_than_the_queue_holds(scripted, kind):
    model = scripted(None, script=echo_script, fail_on=Meeting(4), cache_tokens=8192)
    llm = kind(model=model, temperature=0, max_tokens=4, max_parallel=4, max_queue=2, max_retries=0)
    answers = llm.batch([f"Question {number}" for number in range(60)])
    assert len(answers) == 60
    assert together(model) == 4


async def test_more_inputs_than_the_queue_holds_async(scripted, kind):
    model = scripted(None, script=echo_script, fail_on=Meeting(4), cache_tokens=8192)
    llm = kind(model=model, temperature=0, max_tokens=4, max_parallel=4, max_queue=2, max_retries=0)
    assert len(await llm.abatch([f"Question {number}" for number in range(60)])) == 60
    assert together(model) == 4


def test_max_concurrency(meeting, model, kind, alone):
    meeting.count = 3
    answers = make(kind, model).batch(QUESTIONS, config={"max_concurrency": 3})
    assert together(model) == 3
    assert [text(answer) for answer in answers] == alone


async def test_max_concurrency_async(meeting, model, kind):
    meeting.count = 3
    await make(kind, model).abatch(QUESTIONS, config={"max_concurrency": 3})
    assert together(model) == 3


def test_max_concurrency_of_a_chain_around(meeting, model, kind):
    meeting.count = 2
    chain = PromptTemplate.from_template("{n}") | make(kind, model)
    chain.batch([{"n": number} for number in range(8)], config={"max_concurrency": 2})
    assert together(model) == 2


def test_a_batch_of_none_and_of_one(model, kind, alone):
    assert make(kind, model).batch([]) == []
    assert [text(answer) for answer in make(kind, model).batch(QUESTIONS[:1])] == alone[:1]


def test_an_error_is_returned_for_its_input_alone(meeting, model, kind, alone):
    meeting.count = 15
    inputs = [*QUESTIONS[:3], "long " * 1000, *QUESTIONS[3:]]
    answers = make(kind, model).batch(inputs, return_exceptions=True)
    assert isinstance(answers.pop(3), ContextOverflow)
    assert [text(answer) for answer in answers] == alone
    assert together(model) >= 15


async def test_an_error_is_returned_for_its_input_alone_async(model, kind, alone):
    inputs = [*QUESTIONS[:3], "long " * 1000, *QUESTIONS[3:]]
    answers = await make(kind, model).abatch(inputs, return_exceptions=True)
    assert isinstance(answers.pop(3), ContextOverflow)
    assert [text(answer) for answer in answers] == alone


def test_an_error_is_raised(model, kind):
    with pytest.raises(ContextOverflow):
        make(kind, model).batch([*QUESTIONS, "long " * 1000])


def test_two_threads_at_once(meeting, model, kind, alone):
    meeting.count = 2
    first, second = make(kind, model), make(kind, model)
    start = threading.Barrier(2)

    def ask(llm):
        start.wait()
        return [text(llm.invoke(question)) for question in QUESTIONS[:4]]

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(ask, [first, second]))
    assert together(model) == 2
    assert answers == [alone[:4]] * 2


async def test_two_chains_at_once(meeting, model, kind, alone):
    meeting.count = 2
    chains = [PromptTemplate.from_template(question) | make(kind, model) for question in QUESTIONS[:2]]
    answers = await asyncio.gather(*(chain.ainvoke({}) for chain in chains))
    assert together(model) == 2
    assert [text(answer) for answer in answers] == alone[:2]


def full(kind, scripted, **options):
    """A model with room for one request, that one under way for long, and a short one that waits."""
    model = scripted(None, script=echo_script, step_seconds=0.01)
    options = {"temperature": 0, "max_parallel": 1, "max_queue": 1, **options}
    llm = kind(model=model, **options)
    streams = [llm.stream(question, max_tokens=count) for question, count in zip(QUESTIONS, (1900, 20), strict=False)]
    next(streams[0])
    waiting = threading.Thread(target=lambda: list(streams[1]))
    waiting.start()
    assert eventually(lambda: llm.loaded().stats().waiting == 1)
    return llm, streams[0], waiting


def test_a_full_queue_is_said(scripted, kind):
    llm, running, waiting = full(kind, scripted, max_retries=0)
    with pytest.raises(EngineBusy) as caught:
        llm.invoke("Hi")
    assert caught.value.retryable
    assert isinstance(caught.value, LocalLLMError)
    running.close()
    waiting.join()


async def test_a_full_queue_is_tried_again(scripted, kind):
    llm, running, waiting = full(kind, scripted, max_retries=8)
    answers = asyncio.gather(llm.ainvoke("Hi", max_tokens=4), asyncio.to_thread(llm.invoke, "Hi", max_tokens=4))
    await asyncio.sleep(0.05)
    running.close()
    assert [len(text(answer)) for answer in await answers] == [4, 4]
    waiting.join()


async def test_a_full_queue_is_tried_again_for_many(scripted):
    llm, running, waiting = full(LocalLLM, scripted, max_retries=8)
    answers = asyncio.gather(
        llm.abatch(["Hi", "Ho"], max_tokens=4), asyncio.to_thread(llm.batch, ["Hi", "Ho"], max_tokens=4)
    )
    await asyncio.sleep(0.05)
    running.close()
    assert [[len(answer) for answer in batch] for batch in await answers] == [[4, 4], [4, 4]]
    waiting.join()


def test_a_full_queue_is_not_tried_again_past_the_timeout(scripted, kind):
    llm, running, waiting = full(kind, scripted, max_retries=8)
    with pytest.raises(EngineBusy):
        llm.invoke("Hi", timeout=0.01)
    running.close()
    waiting.join()
