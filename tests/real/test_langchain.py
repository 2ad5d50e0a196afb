"""LangChain on real models: chains, batches, usage, counting, retrieval, cancelling."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from local_llms.errors import ContextOverflow
from local_llms.langchain import ChatLocal, ChatVicuna, LocalEmbeddings, LocalLLM

pytestmark = pytest.mark.real

LOADING = {"context_length": 1024, "max_parallel": 8}
QUESTIONS = [f"Name one thing that is {adjective}." for adjective in ("red", "cold", "old", "round")]
FACTS = {
    "owls": "Owls hunt at night. Their feathers are soft, so that mice do not hear them come.",
    "bridge": "The bridge over the river Wye was built in 1816 of iron and painted green in 1950.",
    "bread": "Bread rises because yeast turns sugar into gas, which the dough holds like a balloon.",
    "tides": "The tides follow the moon. Twice a day the sea comes up the beach and goes back again.",
}


@pytest.fixture(scope="module")
def llm(smollm2_path: Path) -> Iterator[ChatLocal]:
    with ChatLocal(model=smollm2_path, temperature=0, max_tokens=12, **LOADING) as llm:
        yield llm


@pytest.fixture(scope="module")
def embeddings(minilm_path: Path) -> Iterator[LocalEmbeddings]:
    with LocalEmbeddings(model=minilm_path) as embeddings:
        yield embeddings


async def test_a_chain_in_all_its_forms(llm):
    chain = ChatPromptTemplate.from_messages([("human", "{question}")]) | llm | StrOutputParser()
    question = {"question": "What is the capital of France?"}
    answer = chain.invoke(question)
    assert answer
    assert "".join(chain.stream(question)) == answer
    assert await chain.ainvoke(question) == answer
    assert "".join([piece async for piece in chain.astream(question)]) == answer


def test_a_batch_is_decoded_together(llm):
    before = llm.loaded().stats()
    answers = llm.batch(QUESTIONS)
    after = llm.loaded().stats()
    tokens = sum(answer.usage_metadata["output_tokens"] for answer in answers)
    assert after.completion_tokens - before.completion_tokens == tokens
    assert after.steps - before.steps < tokens / 2
    assert all(answer.text for answer in answers)


async def test_an_async_batch_is_decoded_together(llm):
    before = llm.loaded().stats()
    answers = await llm.abatch(QUESTIONS)
    after = llm.loaded().stats()
    tokens = sum(answer.usage_metadata["output_tokens"] for answer in answers)
    assert after.steps - before.steps < tokens / 2


def test_both_classes_share_the_weights_and_answer_alike(llm, smollm2_path):
    other = LocalLLM(model=smollm2_path, temperature=0, max_tokens=12, **LOADING)
    finished = llm.loaded().stats().finished
    assert other.invoke(QUESTIONS[0]) == llm.invoke(QUESTIONS[0]).text
    assert llm.loaded().stats().finished == finished + 2


def test_counting_agrees_with_the_usage(llm):
    messages = [SystemMessage("Be brief."), HumanMessage("Say “naïve” — 你好 🙂 <|im_end|>.")]
    counted = llm.get_num_tokens_from_messages(messages)
    assert llm.invoke(messages).usage_metadata["input_tokens"] == counted
    assert llm.get_num_tokens("Hello there") == len(llm.get_token_ids("Hello there")) == 2


def test_a_shared_beginning_is_computed_once(llm):
    context = "The shop opens at nine and closes at six, but on Sundays it stays closed. " * 6
    llm.invoke(context + "When does it open?")
    usage = llm.invoke(context + "When does it close?").usage_metadata
    assert usage["input_token_details"]["cache_read"] > 0.8 * usage["input_tokens"]


def test_the_profile_is_exact(llm, smollm2_path):
    llm.invoke(QUESTIONS[0])
    assert llm.profile["max_input_tokens"] == 1024
    default = ChatLocal(max_parallel=1)
    expected = default.profile["max_input_tokens"]
    assert default.loaded().info.context_length == expected == default.profile["max_input_tokens"]


def test_a_family_class_speaks_its_own_format(llm, smollm2_path):
    other = ChatVicuna(model=smollm2_path, temperature=0, max_tokens=4, **LOADING)
    assert other.invoke("Hi").usage_metadata["input_tokens"] != llm.invoke("Hi").usage_metadata["input_tokens"]
    assert other.loaded().info.template.startswith("vicuna")


def test_a_prompt_that_is_too_long(llm):
    with pytest.raises(ContextOverflow, match="1024"):
        llm.invoke("word " * 2000)
    assert llm.invoke(QUESTIONS[0]).text


async def test_cancelling_stops_the_computing(llm):
    handle = llm.loaded()
    before = handle.stats()
    task = asyncio.create_task(llm.ainvoke("Count to a thousand.", max_tokens=800))
    while handle.stats().running == 0:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for chunk in llm.stream("Count to a thousand.", max_tokens=800):
        if chunk.text:
            break
    for _ in range(1000):
        if handle.stats().running == 0:
            break
        await asyncio.sleep(0.01)
    after = handle.stats()
    assert (after.running, after.cancelled - before.cancelled) == (0, 2)
    assert after.completion_tokens - before.completion_tokens < 400


def test_pickling_carries_no_weights(llm):
    written = pickle.dumps(llm)
    assert len(written) < 10_000
    assert pickle.loads(written).invoke(QUESTIONS[0]).text == llm.invoke(QUESTIONS[0]).text


async def test_retrieval(llm, embeddings):
    store = InMemoryVectorStore(embeddings)
    await store.aadd_documents([Document(text, metadata={"topic": topic}) for topic, text in FACTS.items()])
    retriever = store.as_retriever(search_kwargs={"k": 1})
    for question, topic in [
        ("Which animal flies in silence?", "owls"),
        ("What does yeast do?", "bread"),
        ("When was the crossing made of metal constructed?", "bridge"),
        ("Why does the sea level change during the day?", "tides"),
    ]:
        (found,) = await retriever.ainvoke(question)
        assert found.metadata["topic"] == topic
    prompt = ChatPromptTemplate.from_template("{context}\n\nAnswer from the text above: {question}")
    context = retriever | (lambda documents: documents[0].page_content)
    chain = (
        {"context": context, "question": RunnablePassthrough()} | prompt | llm.bind(max_tokens=24) | StrOutputParser()
    )
    assert "1816" in await chain.ainvoke("When was the bridge over the Wye built?")


async def test_embeddings(embeddings):
    vectors = embeddings.embed_documents(list(FACTS.values()))
    assert [len(vector) for vector in vectors] == [384] * 4
    assert await embeddings.aembed_documents(list(FACTS.values())) == vectors
    query = await embeddings.aembed_query(FACTS["owls"])
    assert sum(a * b for a, b in zip(query, vectors[0], strict=True)) == pytest.approx(1, abs=1e-3)
