"""The contract of llama-index on this package's class, without weights and on the real model, and on MockLLM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core.llms import LLM, ChatMessage, MockLLM

from local_llms.llama_index import LocalLLM
from local_llms.models import load_model
from local_llms.testing.llama_index_contract import FunctionCallingContract, LLMContract, StructuredContract
from local_llms.testing.scripted import ScriptedBackend, echo_script
from local_llms.testing.scripted_model import scripted_model

LOADING = {"context_length": 2048, "max_parallel": 8}
SAMPLING = {"temperature": 0, "repetition_penalty": 1.1, "max_tokens": 60}


class TestLocalLLM(LLMContract):
    @pytest.fixture
    def llm(self) -> Iterator[LLM]:
        with scripted_model(lambda: ScriptedBackend(echo_script, context_length=4096, cache_tokens=1 << 16)) as model:
            yield LocalLLM(model=model.path, temperature=0, max_tokens=30, context_length=4096)


@pytest.fixture(scope="module")
def smollm2_stays(smollm2_path: Path) -> Iterator[None]:
    """Each test makes its own objects; this keeps the weights between them."""
    with load_model("smollm2-135m-instruct", **LOADING):
        yield


@pytest.mark.real
@pytest.mark.usefixtures("smollm2_stays")
class TestLocalLLMOnARealModel(LLMContract, StructuredContract, FunctionCallingContract):
    same_in_batches = False
    """llama.cpp rounds differently in batches of different shapes: see ``tests/real/test_batches.py``."""

    @pytest.fixture
    def llm(self) -> LLM:
        return LocalLLM(model="smollm2-135m-instruct", **LOADING, **SAMPLING)


class TestMockLLM(LLMContract):
    """llama-index's own model for tests repeats its prompt: it counts no tokens, and its streams begin with nothing."""

    tells_usage = False

    @pytest.fixture
    def llm(self) -> LLM:
        return MockLLM(max_tokens=5)

    @pytest.mark.xfail(reason="the deltas of MockLLM are not the parts of its text")
    def test_pieces_of_a_text_grow_to_the_whole(self, llm: LLM) -> None:
        super().test_pieces_of_a_text_grow_to_the_whole(llm)

    @pytest.mark.xfail(reason="the deltas of MockLLM are not the parts of its text")
    def test_pieces_of_a_message_grow_to_the_whole(self, llm: LLM, messages: list[ChatMessage]) -> None:
        super().test_pieces_of_a_message_grow_to_the_whole(llm, messages)
