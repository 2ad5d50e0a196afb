"""Objects and tool calls from llama-index's own methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, Field

from local_llms.errors import AnswerCut, NoToolCall, OptionError
from local_llms.llama_index import LocalLLM
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 5}}\n</tool_call>'
PROMPT = PromptTemplate("Who is {who}?")


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=150)


ANN = Person(name="Ann", age=31)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


TOOL = FunctionTool.from_defaults(add)


@contextmanager
def model(said: str, **options: Any) -> Iterator[LocalLLM]:
    with scripted_model(lambda: ScriptedBackend(say(said), context_length=8192, cache_tokens=1 << 16)) as path:
        yield LocalLLM(model=path.path, template="smollm2", temperature=0, **options)


async def test_structured_predictions():
    with model('{"name": "Ann", "age": 31}') as llm:
        assert llm.structured_predict(Person, PROMPT, who="she") == ANN
        assert await llm.astructured_predict(Person, PROMPT, who="she") == ANN
        grown = list(llm.stream_structured_predict(Person, PROMPT, who="she"))
        assert grown[-1] == ANN
        assert len(grown) > 5
        again = [one async for one in await llm.astream_structured_predict(Person, PROMPT, who="she")]
        assert [one.model_dump() for one in again] == [one.model_dump() for one in grown]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_structured_llm():
    """llama-index itself calls a method of pydantic's that is deprecated."""
    with model('{"name": "Ann", "age": 31}') as llm:
        structured = llm.as_structured_llm(Person)
        assert structured.complete("Who?").raw == ANN
        assert (await structured.achat([ChatMessage("Who?")])).raw == ANN
        assert list(structured.stream_chat([ChatMessage("Who?")]))[-1].raw == ANN


def test_whatever_the_model_says_it_is_an_instance():
    with model("I would rather not.", max_tokens=900) as llm:
        assert isinstance(llm.structured_predict(Person, PROMPT, who="she"), Person)


def test_an_answer_that_is_cut():
    with model('{"name": "Ann", "age": 31}') as llm, pytest.raises(AnswerCut):
        llm.structured_predict(Person, PROMPT, llm_kwargs={"max_tokens": 5}, who="she")


async def test_calls():
    with model(f"I look.\n{CALL}") as llm:
        for response in (
            llm.chat_with_tools([TOOL], user_msg="2 + 5?"),
            await llm.achat_with_tools([TOOL], chat_history=[ChatMessage("2 + 5?")]),
            list(llm.stream_chat_with_tools([TOOL], user_msg=ChatMessage("2 + 5?")))[-1],
            [one async for one in await llm.astream_chat_with_tools([TOOL], user_msg="2 + 5?")][-1],
        ):
            assert response.message.content == "I look."
            (call,) = llm.get_tool_calls_from_response(response)
            assert (call.tool_name, call.tool_kwargs) == ("add", {"a": 2, "b": 5})
            assert call.tool_id
            assert response.raw["usage"]["completion_tokens"] > 0


def test_a_stream_shows_a_call_growing():
    with model(CALL) as llm:
        seen = [
            block.tool_kwargs
            for response in llm.stream_chat_with_tools([TOOL], user_msg="2 + 5?")
            for block in response.message.blocks
            if isinstance(block, ToolCallBlock)
        ]
        assert seen[-1] == {"a": 2, "b": 5}
        assert any(isinstance(one, str) for one in seen)


def test_a_call_that_must_be():
    with model("No.", max_tokens=900) as llm:
        response = llm.chat_with_tools([TOOL], user_msg="2 + 5?", tool_required=True)
        assert [call.tool_name for call in llm.get_tool_calls_from_response(response)] == ["add"]
        response = llm.chat_with_tools([TOOL], user_msg="2 + 5?")
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
        with pytest.raises(NoToolCall, match=r"No\."):
            llm.get_tool_calls_from_response(response)


async def test_predict_and_call():
    with model(CALL) as llm:
        assert str(llm.predict_and_call([TOOL], user_msg="2 + 5?")) == "7"
        assert str(await llm.apredict_and_call([TOOL], user_msg="2 + 5?")) == "7"


def test_several_calls():
    with model(f"{CALL}\n{CALL}") as llm:
        one = llm.chat_with_tools([TOOL], user_msg="2 + 5?", tool_required=True)
        two = llm.chat_with_tools([TOOL], user_msg="2 + 5?", tool_required=True, allow_parallel_tool_calls=True)
        assert len(llm.get_tool_calls_from_response(one)) == 1
        assert len(llm.get_tool_calls_from_response(two)) == 2


def test_an_answer_held_to_something():
    with model("yes or no") as llm:
        assert llm.complete("Hi", choices=["no", "yes"]).text == "yes"
        assert llm.chat([ChatMessage("Hi")], regex="[a-z ]{6}").message.content == "yes or"
        assert llm.chat([ChatMessage("Hi")]).message.content == "yes or no"


def test_tools_that_are_none():
    with model("x") as llm, pytest.raises(OptionError, match="give llama-index's tools"):
        llm.chat([ChatMessage("Hi")], tools=[add])
