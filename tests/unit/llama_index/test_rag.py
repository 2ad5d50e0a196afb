"""Retrieval over documents: index, query engines, chat engine."""

from __future__ import annotations

import pytest
from llama_index.core import Document, PromptHelper, Settings, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.node_parser import SentenceSplitter

from local_llms.llama_index import LocalEmbedding, LocalLLM

DOCUMENTS = [Document(text=text) for text in ("The tower is red. " * 20, "The bridge is green.", "The boat is blue.")]


@pytest.fixture
def model(scripted):
    return scripted("It is green.", context_length=4096, batch_tokens=4096, cache_tokens=40_000)


@pytest.fixture
def llm(model):
    return LocalLLM(model=model.path, template="chatml")


@pytest.fixture
def index(llm):
    return VectorStoreIndex.from_documents(
        DOCUMENTS,
        embed_model=LocalEmbedding(model=llm.model),
        transformations=[SentenceSplitter(chunk_size=120, chunk_overlap=0, tokenizer=llm.tokenize)],
    )


def test_a_query_is_answered_from_the_documents(index, llm, model):
    answer = index.as_query_engine(llm=llm, similarity_top_k=2).query("What colour is the bridge?")
    assert str(answer) == "It is green."
    assert len(answer.source_nodes) == 2
    assert all(node.text in model.prompts[-1] for node in answer.source_nodes)
    assert "What colour is the bridge?" in model.prompts[-1]


async def test_an_async_query(index, llm):
    answer = await index.as_query_engine(llm=llm).aquery("What colour is the bridge?")
    assert str(answer) == "It is green."


async def test_streaming_queries(index, llm):
    streaming = index.as_query_engine(llm=llm, streaming=True)
    answer = streaming.query("What colour is the bridge?")
    assert list(answer.response_gen) == [*"It is green.", ""]
    answer = await streaming.aquery("What colour is the bridge?")
    assert "".join([text async for text in answer.async_response_gen()]) == "It is green."


@pytest.mark.parametrize("mode", ["refine", "compact", "tree_summarize", "accumulate"])
def test_response_modes(index, llm, mode):
    engine = index.as_query_engine(llm=llm, response_mode=mode, similarity_top_k=3)
    assert "It is green." in str(engine.query("What colour is the bridge?"))


async def test_a_chat_engine(index, llm):
    memory = ChatMemoryBuffer.from_defaults(llm=llm, tokenizer_fn=llm.tokenize)
    engine = index.as_chat_engine(llm=llm, chat_mode="condense_plus_context", memory=memory)
    assert engine.chat("What colour is the bridge?").response == "It is green."
    answer = await engine.astream_chat("And the boat?")
    assert "".join([text async for text in answer.async_response_gen()]) == "It is green."


def test_a_query_counts_its_tokens_once(index, llm, monkeypatch):
    counter = TokenCountingHandler(tokenizer=lambda text: [0] * 100_000)
    monkeypatch.setattr(Settings, "_callback_manager", CallbackManager([counter]))
    index.as_query_engine(llm=llm).query("What colour is the bridge?")
    stats = llm.loaded().stats()
    assert counter.total_llm_token_count == stats.prompt_tokens + stats.completion_tokens


def test_the_splitter_counts_with_the_models_tokenizer(llm):
    splitter = SentenceSplitter(chunk_size=100, chunk_overlap=0, tokenizer=llm.tokenize)
    nodes = splitter.get_nodes_from_documents(DOCUMENTS)
    assert all(len(llm.tokenize(node.text)) <= 100 for node in nodes)
    assert len(nodes) > len(DOCUMENTS)


def test_the_prompt_helper_leaves_room(llm):
    helper = PromptHelper.from_llm_metadata(llm.metadata, tokenizer=llm.tokenize)
    assert (helper.context_window, helper.num_output) == (4096, 512)
