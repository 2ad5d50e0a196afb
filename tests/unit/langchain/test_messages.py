"""LangChain's messages in this package's words."""

from __future__ import annotations

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from local_llms.errors import PromptError, UnsupportedFeature
from local_llms.langchain.messages import to_messages
from local_llms.types import Message, ToolCall


@pytest.mark.parametrize(
    ("message", "role"),
    [
        (SystemMessage("Hi"), "system"),
        (HumanMessage("Hi", name="Ann"), "user"),
        (AIMessage("Hi"), "assistant"),
        (AIMessageChunk("Hi"), "assistant"),
        (ChatMessage("Hi", role="user"), "user"),
        (ChatMessage("Hi", role="human"), "user"),
        (ChatMessage("Hi", role="assistant"), "assistant"),
        (ChatMessage("Hi", role="ai"), "assistant"),
        (ChatMessage("Hi", role="system"), "system"),
        (ChatMessage("Hi", role="developer"), "system"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_roles(message, role):
    assert to_messages([message]) == [Message(role, "Hi")]


def test_unknown_roles():
    with pytest.raises(PromptError, match=r"'Bob'.*assistant"):
        to_messages([ChatMessage("Hi", role="Bob")])
    with pytest.raises(PromptError, match="'remove'"):
        to_messages([RemoveMessage(id="1")])


def test_text_blocks_are_joined():
    blocks = ["One, ", {"type": "text", "text": "two, "}, {"text": "three."}]
    assert to_messages([HumanMessage(blocks)]) == [Message("user", "One, two, three.")]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image", "url": "https://example.com/a.png"},
        {"type": "audio", "base64": "AA==", "mime_type": "audio/wav"},
        {"type": "file", "base64": "AA==", "mime_type": "application/pdf"},
        {"type": "video", "url": "https://example.com/a.mp4"},
    ],
    ids=lambda block: block["type"],
)
def test_other_blocks_are_refused(block):
    with pytest.raises(UnsupportedFeature, match=f"'{block['type']}'"):
        to_messages([HumanMessage(["Look:", block])])


def test_thoughts_are_no_part_of_the_text():
    blocks = [{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "Yes."}]
    assert to_messages([AIMessage(blocks)]) == [Message("assistant", "Yes.", reasoning="Hm.")]


def test_tools_in_the_history():
    calls = [{"name": "add", "args": {"a": 1}, "id": "1"}, {"name": "sub", "args": {"b": 2}, "id": "2"}]
    history = [
        HumanMessage("Compute."),
        AIMessage([{"type": "text", "text": "I look."}, {"type": "tool_use", "id": "1"}], tool_calls=calls),
        ToolMessage("3", tool_call_id="1"),
        ToolMessage("no", tool_call_id="2", status="error"),
        FunctionMessage("5", name="old"),
        AIMessage("Done."),
        ToolMessage([{"type": "text", "text": "6"}], tool_call_id="unknown"),
    ]
    assert to_messages(history) == [
        Message("user", "Compute."),
        Message("assistant", "I look.", (ToolCall("1", "add", {"a": 1}), ToolCall("2", "sub", {"b": 2}))),
        Message("tool", "3", name="add"),
        Message("tool", "no", name="sub", failed=True),
        Message("tool", "5", name="old"),
        Message("assistant", "Done."),
        Message("tool", "6"),
    ]
