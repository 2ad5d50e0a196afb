"""LocalEmbedding on the scripted backend."""

from __future__ import annotations

import math

import pytest
from llama_index.core.schema import TextNode

from local_llms.errors import OptionError
from local_llms.llama_index import LocalEmbedding
from local_llms.testing.scripted import ScriptedBackend

TEXTS = [f"text number {n}" for n in range(7)]


@pytest.fixture
def batches(monkeypatch):
    """Sizes of the batches that the backend is given."""
    sizes: list[int] = []
    embed = ScriptedBackend.embed

    def spy(self, texts):
        sizes.append(len(texts))
        return embed(self, texts)

    monkeypatch.setattr(ScriptedBackend, "embed", spy)
    return sizes


async def test_all_forms_agree(scripted, batches):
    embedding = LocalEmbedding(model=scripted().path, embed_batch_size=4)
    vectors = embedding.get_text_embedding_batch(TEXTS)
    assert batches == [4, 3]
    assert await embedding.aget_text_embedding_batch(TEXTS) == vectors
    assert [embedding.get_text_embedding(text) for text in TEXTS] == vectors
    assert [await embedding.aget_query_embedding(text) for text in TEXTS] == vectors
    assert embedding.get_query_embedding(TEXTS[0]) == await embedding.aget_text_embedding(TEXTS[0])
    assert len({tuple(vector) for vector in vectors}) == len(TEXTS)
    assert all(math.isclose(math.hypot(*vector), 1, rel_tol=1e-5) for vector in vectors)
    assert embedding.get_text_embedding_batch([]) == []


def test_nodes_get_their_vectors(scripted):
    nodes = LocalEmbedding(model=scripted().path)([TextNode(text=text) for text in TEXTS])
    assert all(len(node.embedding) == 8 for node in nodes)


def test_one_name():
    assert LocalEmbedding().model_name == "all-minilm-l6-v2"
    assert LocalEmbedding(model="a/b.gguf").model_name == "a/b.gguf"
    assert LocalEmbedding(model_name="a/b.gguf").model == "a/b.gguf"
    with pytest.raises(OptionError, match="Keep one"):
        LocalEmbedding(model="a", model_name="b")


def test_the_default_model_embeds():
    assert LocalEmbedding()._specification(None)[0] == "all-minilm-l6-v2"


def test_tokenize_is_the_models_own(scripted):
    assert LocalEmbedding(model=scripted().path).tokenize("<s>é") == [60, 115, 62, 195, 169]
