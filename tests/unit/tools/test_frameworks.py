"""Calls in every format through both frameworks: forced ones from noise, whole and in pieces, several, and none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from llama_index.core.base.llms.types import ChatMessage, MessageRole, ToolCallBlock

from local_llms.catalog import find_template
from local_llms.langchain import ChatLocal
from local_llms.llama_index import LocalLLM
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model
from local_llms.tools import format_of
from tests.unit.constraints.conftest import noise
from tests.unit.tools.test_formats import NAMES, WEATHER

DESCRIBED = {
    "type": "function",
    "function": {"name": WEATHER.name, "description": WEATHER.description, "parameters": dict(WEATHER.parameters)},
}
OTHER = {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {}}}
TOOLS = [DESCRIBED, OTHER]


@contextmanager
def made(script: Any) -> Iterator[str]:
    with scripted_model(lambda: ScriptedBackend(script, context_length=8192, cache_tokens=1 << 18)) as model:
        yield model.path


def calls_of(response: Any) -> list[ToolCallBlock]:
    return [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]


@pytest.mark.parametrize("template", NAMES)
def test_a_forced_call_is_the_same_in_pieces_and_in_both_frameworks(template: str) -> None:
    with made(noise) as path:
        chat = ChatLocal(model=path, template=template, max_tokens=900)
        bound = chat.bind_tools(TOOLS, tool_choice="get_weather")
        llm = LocalLLM(model=path, template=template, max_tokens=900)
        asked = {"tools": TOOLS, "tool_choice": "get_weather"}
        question = [ChatMessage(role=MessageRole.USER, content="How is it?")]
        for seed in range(6):
            whole = bound.invoke("How is it?", seed=seed)
            (call,) = whole.tool_calls
            assert call["name"] == "get_weather"
            assert not whole.text
            chunks = list(bound.stream("How is it?", seed=seed))
            (again,) = sum(chunks[1:], chunks[0]).tool_calls
            assert (again["name"], again["args"]) == (call["name"], call["args"])
            for response in (
                llm.chat(question, seed=seed, **asked),
                list(llm.stream_chat(question, seed=seed, **asked))[-1],
            ):
                (block,) = calls_of(response)
                assert (block.tool_name, block.tool_kwargs) == ("get_weather", call["args"])


@pytest.mark.parametrize("template", NAMES)
def test_choices_in_every_format(template: str) -> None:
    """Nothing where nothing may be called; any tool where one must be; several where the format has a way."""
    form = format_of(find_template(template)[1])
    one = form.call.replace("$name", "now").replace("$arguments", "{}" if form.arguments == "json" else "")
    with made(say(form.between.join([one, one]))) as path:
        chat = ChatLocal(model=path, template=template, temperature=0, max_tokens=400)
        assert not chat.bind_tools(TOOLS, tool_choice="none").invoke("x").tool_calls
        for choice in ("any", "auto"):
            assert [call["name"] for call in chat.bind_tools(TOOLS, tool_choice=choice).invoke("x").tool_calls] == [
                "now"
            ]
            both = chat.bind_tools(TOOLS, tool_choice=choice, parallel_tool_calls=True)
            expected = ["now"] * (2 if form.parallel else 1)
            assert [call["name"] for call in both.invoke("x").tool_calls] == expected
            chunks = list(both.stream("x"))
            assert [call["name"] for call in sum(chunks[1:], chunks[0]).tool_calls] == expected


@pytest.mark.parametrize("template", NAMES)
@pytest.mark.parametrize("status", ["success", "error"])
def test_results_and_errors_go_back_in_both_frameworks(template: str, status: str) -> None:
    seen: list[str] = []

    def script(tokens: Sequence[int]) -> int:
        seen.append(bytes(token for token in tokens if token < 256).decode("utf-8", "replace"))
        return say("Well.")(tokens)

    with made(script) as path:
        call = {"name": "get_weather", "args": {"city": "Köln"}, "id": "c1"}
        history = [
            HumanMessage("How is it?"),
            AIMessage("", tool_calls=[call]),
            ToolMessage("a storm", tool_call_id="c1", status=status),
        ]
        ChatLocal(model=path, template=template).bind_tools(TOOLS).invoke(history)
        told = seen[0]
        assert told.index("How is it?") < told.index("Köln") < told.index("a storm")
        assert ("Error" in told) == (status == "error")
        block = ToolCallBlock(tool_call_id="c1", tool_name="get_weather", tool_kwargs=json.dumps(call["args"]))
        del seen[:]
        LocalLLM(model=path, template=template).chat(
            [
                ChatMessage(role=MessageRole.USER, content="How is it?"),
                ChatMessage(role=MessageRole.ASSISTANT, blocks=[block]),
                ChatMessage(role=MessageRole.TOOL, content="a storm", additional_kwargs={"tool_call_id": "c1"}),
            ],
            tools=TOOLS,
        )
        if status == "success":
            assert seen[0] == told
