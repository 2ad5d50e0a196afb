"""Texts become vectors."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.vectorstores import InMemoryVectorStore

from local_llms.catalog import default_model
from local_llms.errors import UnsupportedFeature
from local_llms.langchain import LocalEmbeddings
from local_llms.langchain.embeddings import SLICE


def test_one_vector_per_text(scripted):
    embeddings = LocalEmbeddings(model=scripted())
    vectors = embeddings.embed_documents(["a", "b", "a"])
    assert [len(vector) for vector in vectors] == [8, 8, 8]
    assert vectors[0] == vectors[2] != vectors[1]
    assert embeddings.embed_query("b") == vectors[1]
    assert sum(number * number for number in vectors[0]) == pytest.approx(1)
    assert isinstance(vectors[0][0], float)


async def test_async_gives_the_same(scripted):
    embeddings = LocalEmbeddings(model=scripted())
    texts = [f"text {number}" for number in range(10)]
    vectors = embeddings.embed_documents(texts)
    assert await embeddings.aembed_documents(texts) == vectors
    assert await asyncio.gather(*(embeddings.aembed_query(text) for text in texts)) == vectors


async def test_thousands_of_texts(scripted):
    embeddings = LocalEmbeddings(model=scripted())
    texts = [f"text {number}" for number in range(3000)]
    vectors = embeddings.embed_documents(texts)
    assert len(vectors) == 3000
    assert vectors[SLICE] == embeddings.embed_query(texts[SLICE])
    assert vectors[-1] == embeddings.embed_query(texts[-1])
    assert await embeddings.aembed_documents(texts) == vectors


async def test_no_text(scripted):
    embeddings = LocalEmbeddings(model=scripted())
    assert embeddings.embed_documents([]) == await embeddings.aembed_documents([]) == []


def test_the_default_is_an_embedding_model():
    assert LocalEmbeddings()._specification(None)[0] == default_model("embed") == "all-minilm-l6-v2"


def test_a_text_longer_than_the_context_is_cut(scripted):
    embeddings = LocalEmbeddings(model=scripted(), context_length=64)
    assert embeddings.embed_query("x" * 1000) == embeddings.embed_query("x" * 2000)


def test_a_model_that_makes_no_embeddings(scripted):
    model = scripted()
    make = model.make

    def without():
        backend = make()
        backend.tell(embedding_size=None)
        return backend

    model.make = without
    with pytest.raises(UnsupportedFeature, match="all-minilm-l6-v2"):
        LocalEmbeddings(model=model).embed_query("Hi")


def test_a_vector_store(scripted):
    store = InMemoryVectorStore(LocalEmbeddings(model=scripted()))
    store.add_texts(["one", "two", "three"])
    assert store.similarity_search("two", k=1)[0].page_content == "two"
