"""Tools of LangChain: bound, called, streamed, answered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from local_llms.errors import AnswerCut, OptionError
from local_llms.langchain import ChatLocal
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 5}}\n</tool_call>'


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def now() -> str:
    """The time."""
    return "noon"


@contextmanager
def chat(script: str | Any, **options: Any) -> Iterator[ChatLocal]:
    made = say(script) if isinstance(script, str) else script
    with scripted_model(lambda: ScriptedBackend(made, context_length=8192, cache_tokens=1 << 16)) as model:
        yield ChatLocal(model=model.path, template="smollm2", temperature=0, **options)


def whole(chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
    return sum(chunks[1:], chunks[0])


def test_a_call():
    with chat(f"I look.\n{CALL}") as llm:
        answer = llm.bind_tools([add, now]).invoke("2 + 5?")
        assert answer.content == "I look."
        assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("add", {"a": 2, "b": 5})]
        assert answer.tool_calls[0]["id"]
        assert answer.response_metadata["finish_reason"] == "stop"


async def test_a_call_streams_and_assembles():
    with chat(f"I look.\n{CALL}") as llm:
        bound = llm.bind_tools([add, now])
        for chunks in (list(bound.stream("2 + 5?")), [chunk async for chunk in bound.astream("2 + 5?")]):
            assert len([chunk for chunk in chunks if chunk.tool_call_chunks]) > 3
            names = [part["name"] for chunk in chunks for part in chunk.tool_call_chunks if part["name"]]
            assert names == ["add"]
            answer = whole(chunks)
            assert answer.content == "I look."
            assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("add", {"a": 2, "b": 5})]
            assert answer.usage_metadata is not None


def test_several_calls_stream():
    with chat(f"{CALL}\n{CALL}") as llm:
        bound = llm.bind_tools([add], parallel_tool_calls=True)
        answer = whole(list(bound.stream("2 + 5?")))
        assert [call["args"] for call in answer.tool_calls] == [{"a": 2, "b": 5}] * 2
        assert len({call["id"] for call in answer.tool_calls}) == 2
        assert len(bound.invoke("2 + 5?").tool_calls) == 2


@pytest.mark.parametrize(
    "choice", ["any", "required", "add", True, {"type": "function", "function": {"name": "add"}}], ids=str
)
def test_a_forced_call(choice):
    """Whatever the model would say."""
    with chat("No.", max_tokens=900) as llm:
        answer = llm.bind_tools([add], tool_choice=choice).invoke("2 + 5?")
        assert [call["name"] for call in answer.tool_calls] == ["add"]
        assert set(answer.tool_calls[0]["args"]) == {"a", "b"}


@pytest.mark.parametrize("choice", ["none", "auto", None])
def test_no_call(choice):
    with chat("No.") as llm:
        answer = llm.bind_tools([add], tool_choice=choice).invoke("2 + 5?")
        assert answer.content == "No."
        assert answer.tool_calls == []


@pytest.mark.parametrize("choice", ["addd", 5, {"function": {}}])
def test_choices_that_are_none(choice):
    with chat("No.") as llm, pytest.raises(OptionError, match=r"tool_choice|names no tool"):
        llm.bind_tools([add], tool_choice=choice).invoke("2 + 5?")


def test_what_a_tool_may_be():
    class Multiply(BaseModel):
        """Multiply."""

        a: int = Field(ge=0)

    def subtract(a: int) -> int:
        """Subtract."""
        return a

    described = {"name": "other", "description": "", "parameters": {"type": "object", "properties": {}}}
    with chat("No.", max_tokens=900) as llm:
        for one, name in ((Multiply, "Multiply"), (subtract, "subtract"), (described, "other"), (add, "add")):
            answer = llm.bind_tools([one], tool_choice="any").invoke("x")
            assert [call["name"] for call in answer.tool_calls] == [name]


def test_the_result_goes_back():
    def script(tokens: Sequence[int]) -> int:
        said = bytes(token for token in tokens if token < 256).decode()
        return say("It is 7." if "Result of add:\n7" in said else "It failed." if "Error of add" in said else CALL)(
            tokens
        )

    with chat(script) as llm:
        bound = llm.bind_tools([add])
        history: list[Any] = [HumanMessage("2 + 5?"), bound.invoke("2 + 5?")]
        number = history[1].tool_calls[0]["id"]
        assert bound.invoke([*history, ToolMessage("7", tool_call_id=number)]).content == "It is 7."
        assert bound.invoke([*history, ToolMessage("x", tool_call_id=number, status="error")]).content == "It failed."


def test_an_agent():
    def script(tokens: Sequence[int]) -> int:
        said = bytes(token for token in tokens if token < 256).decode()
        return say("It is 7." if "Result of add:\n7" in said else CALL)(tokens)

    with chat(script) as llm:
        messages = create_agent(llm, [add, now]).invoke({"messages": [("user", "2 + 5?")]})["messages"]
        assert [type(message) for message in messages] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
        assert messages[-1].content == "It is 7."


class Person(BaseModel):
    """A person."""

    name: str = Field(description="the first name", max_length=8)
    age: int = Field(ge=0, le=150)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("kind", ["pydantic", "dictionary"])
async def test_structured_output(method, kind):
    said = '{"name": "Ann", "age": 31}'
    if method == "function_calling":
        said = f'<tool_call>\n{{"name": "Person", "arguments": {said}}}\n</tool_call>'
    schema = Person if kind == "pydantic" else Person.model_json_schema()
    right = Person(name="Ann", age=31) if kind == "pydantic" else {"name": "Ann", "age": 31}
    with chat(said) as llm:
        chain = llm.with_structured_output(schema, method=method, strict=True)
        assert chain.invoke("Who?") == await chain.ainvoke("Who?") == right
        assert chain.batch(["Who?", "Who?"]) == [right, right]
        grown = list(chain.stream("Who?"))
        assert grown[-1] == right
        assert len(grown) > 1 or kind == "pydantic"


def test_whatever_the_model_says_it_is_an_instance():
    with chat("I would rather not.", max_tokens=900) as llm:
        assert isinstance(llm.with_structured_output(Person).invoke("Who?"), Person)
        assert isinstance(llm.with_structured_output(Person, method="function_calling").invoke("Who?"), Person)


def test_json_mode():
    with chat('{"name": "Ann", "more": [1]}') as llm:
        assert llm.with_structured_output(None, method="json_mode").invoke("Who?") == {"name": "Ann", "more": [1]}
    with chat("I would rather not.", max_tokens=900) as llm:
        assert isinstance(llm.with_structured_output(Person, method="json_mode").invoke("Who?"), Person)


def test_the_raw_answer_too():
    with chat('{"name": "Ann", "age": 31}') as llm:
        found = llm.with_structured_output(Person, include_raw=True).invoke("Who?")
        assert found["parsed"] == Person(name="Ann", age=31)
        assert found["parsing_error"] is None
        assert json.loads(found["raw"].content) == {"name": "Ann", "age": 31}


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("schema", [Person, Person.model_json_schema()], ids=["pydantic", "dictionary"])
@pytest.mark.parametrize("most", [9, 52, 60])
def test_an_answer_that_is_cut(method, schema, most):
    """In front of a call, in it, or in the middle of the object: never a part that is taken for the whole."""
    said = '{"name": "Ann", "age": 31}'
    if method == "function_calling":
        said = f'<tool_call>\n{{"name": "Person", "arguments": {said}}}\n</tool_call>'
    most = min(most, len(said) - 10)
    with chat(said, max_tokens=most) as llm:
        with pytest.raises(AnswerCut):
            llm.with_structured_output(schema, method=method).invoke("Who?")
        with pytest.raises(AnswerCut):
            list(llm.with_structured_output(schema, method=method).stream("Who?"))
        chain = llm.with_structured_output(schema, method=method, include_raw=True)
        streamed: dict[str, Any] = {}
        for part in chain.stream("Who?"):
            streamed = {**streamed, **part}
        for found in (chain.invoke("Who?"), streamed):
            assert found["parsed"] is None
            assert "cut" in str(found["parsing_error"])
        raw = chain.invoke("Who?")["raw"]
        assert raw.response_metadata["finish_reason"] == "length"
        assert raw.response_metadata["cut"]
        assert raw.tool_calls == []
        assert raw.content or [call["name"] for call in raw.invalid_tool_calls] == ["Person"]
    with chat(said) as llm:
        found = llm.with_structured_output(schema, method=method, include_raw=True).invoke("Who?")
        assert found["parsed"]
        assert "cut" not in found["raw"].response_metadata


def test_the_model_is_shown_what_to_answer_with():
    with scripted_model(lambda: ScriptedBackend(say("{}"), context_length=8192)) as model:
        llm = ChatLocal(model=model.path, template="chatml", max_tokens=500)
        llm.with_structured_output(Person).invoke("Who?")
        sent = bytes(token for chunk in model.backend.decodes[0] for token in chunk.tokens if token < 256).decode()
        assert 'Who?\n\nAnswer with JSON: {"name": "<the first name>", "age": <age>}' in sent


def test_response_formats():
    with chat('{"name": "Ann", "age": 31}') as llm:
        asked = {"type": "json_schema", "json_schema": {"name": "p", "schema": Person.model_json_schema()}}
        assert json.loads(llm.invoke("Who?", response_format=asked).content)["age"] == 31
        assert json.loads(llm.invoke("Who?", response_format={"type": "json_object"}).content)["age"] == 31
        assert llm.invoke("Who?", response_format={"type": "text"}).content == '{"name": "Ann", "age": 31}'
        with pytest.raises(OptionError, match="response_format"):
            llm.invoke("Who?", response_format={"type": "yaml"})


def test_an_agent_that_answers_with_an_object():
    with chat('{"name": "Ann", "age": 31}') as llm:
        agent = create_agent(llm, [add], response_format=Person)
        assert agent.invoke({"messages": [("user", "Who?")]})["structured_response"] == Person(name="Ann", age=31)


@pytest.mark.parametrize("wrong", [{"schema": None}, {"schema": Person, "method": "yaml"}])
def test_mistakes(wrong):
    with chat("x") as llm, pytest.raises(OptionError):
        llm.with_structured_output(**wrong)
