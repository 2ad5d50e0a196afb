"""Agents that work through text, and agents that call tools."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent

from local_llms.llama_index import LocalLLM
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model

# llama-index looks through all attributes of an agent, pydantic's deprecated ones too.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.fixture
def llm(scripted):
    thought = "Thought: I can answer without using any more tools.\nAnswer: 4"
    return LocalLLM(model=scripted(thought, context_length=8192, cache_tokens=16384).path, template="chatml")


async def test_a_react_agent(llm):
    assert str(await ReActAgent(tools=[add], llm=llm).run("2 + 2?")) == "4"


async def test_a_function_agent():
    """It calls, is told the result, and answers."""
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 5}}\n</tool_call>'

    def script(tokens: Sequence[int]) -> int:
        said = bytes(token for token in tokens if token < 256).decode()
        return say("It is 7." if "Result of add:\n7" in said else call)(tokens)

    with scripted_model(lambda: ScriptedBackend(script, context_length=8192, cache_tokens=16384)) as model:
        llm = LocalLLM(model=model.path, template="smollm2", temperature=0)
        assert str(await FunctionAgent(tools=[add], llm=llm).run("2 + 5?")) == "It is 7."
