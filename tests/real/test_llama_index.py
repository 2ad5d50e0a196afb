"""llama-index on real models: answers, retrieval over documents, counting, cancelling."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.node_parser import SentenceSplitter

from local_llms.llama_index import LocalEmbedding, LocalLLM

pytestmark = pytest.mark.real

FACTS = {
    "owls": "Owls hunt at night. Their feathers are soft, so that mice do not hear them come.",
    "bridge": "The bridge over the river Wye was built in 1816 of iron and painted green in 1950.",
    "bread": "Bread rises because yeast turns sugar into gas, which the dough holds like a balloon.",
    "tides": "The tides follow the moon. Twice a day the sea comes up the beach and goes back again.",
}
QUESTION = [ChatMessage(role="user", content="Name the colour of the sky in one word.")]


@pytest.fixture(scope="module")
def llm(smollm2_path: Path) -> Iterator[LocalLLM]:
    with LocalLLM(model=smollm2_path, temperature=0, max_tokens=12, context_length=2048, max_parallel=4) as llm:
        yield llm


@pytest.fixture(scope="module")
def embedding(minilm_path: Path) -> Iterator[LocalEmbedding]:
    with LocalEmbedding(model=minilm_path) as embedding:
        yield embedding


@pytest.fixture(scope="module")
def index(llm: LocalLLM, embedding: LocalEmbedding) -> VectorStoreIndex:
    return VectorStoreIndex.from_documents(
        [Document(text=text, metadata={"topic": topic}) for topic, text in FACTS.items()],
        embed_model=embedding,
        transformations=[SentenceSplitter(tokenizer=llm.tokenize)],
    )


async def test_all_forms_give_the_same_answer(llm):
    # A prompt computed at once and one taken from the cache differ in the last digits, and may in a close choice.
    llm.chat(QUESTION)
    whole = llm.chat(QUESTION)
    assert whole.message.content
    assert whole.raw["usage"]["completion_tokens"] <= 12
    streamed = list(llm.stream_chat(QUESTION))
    astreamed = [piece async for piece in await llm.astream_chat(QUESTION)]
    assert "".join(piece.delta for piece in streamed) == whole.message.content
    assert "".join(piece.delta for piece in astreamed) == whole.message.content
    assert (await llm.achat(QUESTION)).message.content == whole.message.content
    assert llm.complete(QUESTION[0].content).text == whole.message.content
    assert llm.metadata.context_window == 2048


@pytest.mark.parametrize(
    ("question", "topic"),
    [("When was the iron bridge painted?", "bridge"), ("Why does dough get bigger?", "bread")],
)
def test_retrieval_finds_the_right_document(index, llm, question, topic):
    answer = index.as_query_engine(llm=llm, similarity_top_k=1).query(question)
    assert [node.metadata["topic"] for node in answer.source_nodes] == [topic]
    assert str(answer).strip()


def test_a_streaming_query(index, llm):
    engine = index.as_query_engine(llm=llm, similarity_top_k=1)
    engine.query("What do owls hunt?")
    whole = engine.query("What do owls hunt?")
    answer = index.as_query_engine(llm=llm, similarity_top_k=1, streaming=True).query("What do owls hunt?")
    assert "".join(answer.response_gen) == str(whole)


async def test_queries_at_the_same_time(index, llm):
    engine = index.as_query_engine(llm=llm, similarity_top_k=1)
    before = llm.loaded().stats()
    answers = await asyncio.gather(*(engine.aquery(f"What is said about {topic}?") for topic in FACTS))
    after = llm.loaded().stats()
    assert [answer.source_nodes[0].metadata["topic"] for answer in answers] == list(FACTS)
    tokens = after.completion_tokens - before.completion_tokens
    assert after.finished - before.finished == len(FACTS)
    assert after.steps - before.steps < tokens, "one step gave a token to one request at most"


def test_tokens_are_counted_once(index, llm, monkeypatch):
    counter = TokenCountingHandler(tokenizer=llm.tokenize)
    monkeypatch.setattr(Settings, "_callback_manager", CallbackManager([counter]))
    before = llm.loaded().stats()
    index.as_query_engine(llm=llm, similarity_top_k=1).query("What do the tides follow?")
    after = llm.loaded().stats()
    assert counter.prompt_llm_token_count == after.prompt_tokens - before.prompt_tokens
    assert counter.completion_llm_token_count == after.completion_tokens - before.completion_tokens


def test_leaving_a_stream_stops_the_computing(llm):
    stream = llm.stream_complete("Tell me a long story.", max_tokens=1500)
    next(stream)
    stream.close()
    end = time.monotonic() + 10
    while llm.loaded().stats().running:
        assert time.monotonic() < end, "it computes on"
        time.sleep(0.01)
    assert llm.loaded().stats().completion_tokens < 1500


def test_embeddings(embedding):
    eating, bread, piano = embedding.get_text_embedding_batch(
        ["A man is eating food.", "A man is eating a piece of bread.", "Someone plays the piano."]
    )
    assert len(eating) == 384
    assert embedding.similarity(eating, bread) == pytest.approx(0.755, abs=0.01)
    assert embedding.similarity(eating, piano) < 0.3
