"""LangChain's newer standards: content blocks, events, traces, bindings that are copied, windows that fit."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableBinding
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from local_llms.errors import DeadlineExceeded
from local_llms.langchain import ChatLocal
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import ScriptedModel, scripted_model

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 5}}\n</tool_call>'


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=8)


@contextmanager
def model(said: str, **options: Any) -> Iterator[ScriptedModel]:
    options.setdefault("context_length", 8192)
    with scripted_model(lambda: ScriptedBackend(say(said), cache_tokens=1 << 16, **options), template="chatml") as made:
        yield made


@pytest.mark.parametrize("calls", [1, 2])
async def test_blocks_of_text_and_calls_do_not_run_into_each_other(calls):
    with model("I look.\n" + "\n".join([CALL] * calls)) as made:
        llm = ChatLocal(model=made.path, temperature=0, output_version="v1")
        bound = llm.bind_tools([add], parallel_tool_calls=True)
        streamed, astreamed = list(bound.stream("2 + 5?")), [chunk async for chunk in bound.astream("2 + 5?")]
        for answer in (
            bound.invoke("2 + 5?"),
            sum(streamed[1:], streamed[0]),
            sum(astreamed[1:], astreamed[0]),
        ):
            blocks = answer.content_blocks
            assert [block["type"] for block in blocks] == ["text", *["tool_call"] * calls]
            assert blocks[0]["text"] == "I look."
            assert [block["args"] for block in blocks[1:]] == [{"a": 2, "b": 5}] * calls
            assert [call["id"] for call in answer.tool_calls] == [block["id"] for block in blocks[1:]]
            # And such an answer can stand in a history.
            results = [ToolMessage("7", tool_call_id=call["id"]) for call in answer.tool_calls]
            assert bound.invoke([HumanMessage("2 + 5?"), answer, *results]).text == "I look."


async def test_events_of_a_call():
    with model(f"I look.\n{CALL}") as made:
        bound = ChatLocal(model=made.path, temperature=0).bind_tools([add])
        events = [event async for event in bound.astream_events("2 + 5?", version="v2")]
        kinds = [event["event"] for event in events]
        assert (kinds[0], kinds[-1]) == ("on_chat_model_start", "on_chat_model_end")
        assert set(kinds[1:-1]) == {"on_chat_model_stream"}
        parts = [part for event in events[1:-1] for part in event["data"]["chunk"].tool_call_chunks]
        assert "".join(part["args"] for part in parts) == '{"a": 2, "b": 5}'
        assert [part["name"] for part in parts if part["name"]] == ["add"]
        assert [call["args"] for call in events[-1]["data"]["output"].tool_calls] == [{"a": 2, "b": 5}]


class Traces(BaseCallbackHandler):
    """Keeps what a tracer is told of each run."""

    def __init__(self) -> None:
        self.starts: list[dict[str, Any]] = []
        self.ends = self.errors = 0

    def on_chat_model_start(self, serialized, messages, **told):
        self.starts.append(told)

    def on_llm_end(self, response, **told):
        self.ends += 1

    def on_llm_error(self, error, **told):
        self.errors += 1


async def ask(llm: ChatLocal, form: str, **given: Any) -> None:
    if form == "batch":
        llm.batch(["Hi"], **given)
    elif form == "stream":
        list(llm.stream("Hi", **given))
    elif form == "astream":
        assert [chunk async for chunk in llm.astream("Hi", **given)]
    elif form == "ainvoke":
        await llm.ainvoke("Hi", **given)
    else:
        llm.invoke("Hi", **given)


FORMS = ["invoke", "ainvoke", "stream", "astream", "batch"]


@pytest.mark.parametrize("form", FORMS)
async def test_a_call_is_traced_once_with_its_own_options(form):
    with model("Hello") as made:
        traces = Traces()
        llm = ChatLocal(model=made.path, temperature=0.5, max_tokens=50)
        await ask(llm, form, config={"callbacks": [traces]}, temperature=0.0, stop=["x"])
        assert (len(traces.starts), traces.ends, traces.errors) == (1, 1, 0)
        told = traces.starts[0]["metadata"]
        expected = {
            "ls_provider": "local_llms",
            "ls_model_name": made.path,
            "ls_model_type": "chat",
            "ls_temperature": 0.0,
            "ls_max_tokens": 50,
            "ls_stop": ["x"],
        }
        assert {name: told.get(name) for name in expected} == expected


@pytest.mark.parametrize("form", FORMS)
async def test_an_error_is_traced_once(form):
    with model("Hello", step_seconds=0.05) as made:
        traces = Traces()
        with pytest.raises(DeadlineExceeded):
            await ask(ChatLocal(model=made.path, timeout=0.06), form, config={"callbacks": [traces]})
        assert (len(traces.starts), traces.ends, traces.errors) == (1, 0, 1)


def test_bindings_are_copied_without_weights():
    with model(CALL) as made:
        bound = ChatLocal(model=made.path, temperature=0).bind_tools([add], tool_choice="any")
        bound.invoke("2 + 5?")
        written = pickle.dumps(bound)
        assert len(written) < 10_000
        assert [call["args"] for call in pickle.loads(written).invoke("2 + 5?").tool_calls] == [{"a": 2, "b": 5}]
        assert len(made.backends) == 1


def test_structured_chains_are_copied():
    with model('{"name": "Ann"}') as made:
        chain = ChatLocal(model=made.path, temperature=0).with_structured_output(Person)
        assert pickle.loads(pickle.dumps(chain)).invoke("Who?") == Person(name="Ann")


@pytest.mark.filterwarnings("ignore:The function `load")
def test_bindings_are_written_down_and_read():
    with model(CALL) as made:
        bound = ChatLocal(model=made.path, temperature=0, api_key="secret").bind_tools([add], tool_choice="any")
        written = dumps(bound)
        assert "secret" not in written
        read = loads(written, allowed_objects=[ChatLocal, RunnableBinding], valid_namespaces=["local_llms"])
        assert [call["args"] for call in read.invoke("2 + 5?").tool_calls] == [{"a": 2, "b": 5}]
        # Who does not name the class gets none of it.
        with pytest.raises(ValueError, match=r"ChatLocal|not allowed|namespace"):
            loads(written, allowed_objects=[RunnableBinding])


def conversation(turns: int) -> list[Any]:
    said = [
        message for n in range(turns) for message in (HumanMessage(f"question {n:03}"), AIMessage(f"answer {n:03}"))
    ]
    return [*said, HumanMessage("the last question")]


def test_the_summarization_middleware_sizes_itself_by_the_profile():
    """At four fifths of what the profile says there is room for, counted by the model's own tokenizer."""
    with model("A summary.", context_length=8000) as made:
        llm = ChatLocal(model=made.path, max_tokens=20)
        llm.loaded()
        assert llm.profile["max_input_tokens"] == 8000
        middleware = SummarizationMiddleware(
            llm, trigger=("fraction", 0.8), keep=("messages", 3), token_counter=llm.get_num_tokens_from_messages
        )
        agent = create_agent(llm, [], middleware=[middleware])

        def count(turns: int) -> int:
            return llm.get_num_tokens_from_messages(conversation(turns))

        most = next(turns for turns in range(200) if count(turns + 1) >= 6400)
        assert count(most) < 6400 <= count(most + 1)
        below = agent.invoke({"messages": conversation(most)})["messages"]
        assert len(below) == 2 * most + 2
        above = agent.invoke({"messages": conversation(most + 1)})["messages"]
        assert len(above) == 5
        assert "A summary." in above[0].text
        assert above[-2].text == "the last question"


def test_counting_tells_of_every_part():
    """Each message, tool and marker counts as in the prompt that is sent."""
    with model("Hello") as made:
        llm = ChatLocal(model=made.path)
        history = [
            SystemMessage("S"),
            HumanMessage("2 + 5?"),
            AIMessage("", tool_calls=[{"name": "add", "args": {"a": 2, "b": 5}, "id": "1"}]),
            ToolMessage("7", tool_call_id="1"),
        ]
        bound = llm.bind_tools([add])
        counted = llm.get_num_tokens_from_messages(history, tools=[add])
        assert bound.invoke(history).usage_metadata["input_tokens"] == counted
        assert counted > llm.get_num_tokens_from_messages(history)
        assert llm.get_num_tokens_from_messages(history) > llm.get_num_tokens_from_messages(history[:2])
