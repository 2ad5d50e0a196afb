"""Agents that work through text; those that need tool calls refuse a model without them."""

from __future__ import annotations

import pytest
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent

from local_llms.llama_index import LocalLLM

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


async def test_a_function_agent_is_refused(llm):
    with pytest.raises(ValueError, match="FunctionCallingLLM"):
        await FunctionAgent(tools=[add], llm=llm).run("2 + 2?")
