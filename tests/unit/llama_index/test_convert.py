"""llama-index's messages in this package's words."""

from __future__ import annotations

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from local_llms.errors import UnsupportedFeature
from local_llms.llama_index.convert import to_messages
from local_llms.types import Message, ToolCall


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("system", "system"),
        ("developer", "system"),
        ("user", "user"),
        ("assistant", "assistant"),
        ("chatbot", "assistant"),
        ("model", "assistant"),
    ],
)
def test_roles(role, expected):
    assert to_messages([ChatMessage(role=role, content="Hi")]) == [Message(expected, "Hi")]


def test_every_role_is_understood():
    for role in MessageRole:
        assert len(to_messages([ChatMessage(role=role, content="Hi")])) == 1


def test_text_blocks_become_lines():
    blocks = [TextBlock(text="One."), ThinkingBlock(content="Hm."), TextBlock(text="Two.")]
    assert to_messages([ChatMessage(blocks=blocks)]) == [Message("user", "One.\nTwo.")]


def test_an_empty_message():
    assert to_messages([ChatMessage(role="user")]) == [Message("user", "")]


def test_other_blocks_are_refused():
    with pytest.raises(UnsupportedFeature, match="'image'"):
        to_messages([ChatMessage(blocks=[TextBlock(text="Look:"), ImageBlock(url="https://example.com/a.png")])])


def test_tools_in_the_history():
    calls = [
        TextBlock(text="I look."),
        ToolCallBlock(tool_call_id="1", tool_name="add", tool_kwargs={"a": 1}),
        ToolCallBlock(tool_call_id="2", tool_name="sub", tool_kwargs={"b": 2}),
    ]
    history = [
        ChatMessage(role="user", content="Compute."),
        ChatMessage(role="assistant", blocks=calls),
        ChatMessage(role="tool", content="3", additional_kwargs={"tool_call_id": "1"}),
        ChatMessage(role="tool", content="4", additional_kwargs={"name": "sub", "tool_call_id": "2"}),
        ChatMessage(role="function", content="5"),
        ChatMessage(role="assistant", content="Done."),
        ChatMessage(role="tool", content="6"),
    ]
    assert to_messages(history) == [
        Message("user", "Compute."),
        Message("assistant", "I look.", (ToolCall("1", "add", {"a": 1}), ToolCall("2", "sub", {"b": 2}))),
        Message("tool", "3", name="add"),
        Message("tool", "4", name="sub"),
        Message("tool", "5"),
        Message("assistant", "Done."),
        Message("tool", "6"),
    ]


def test_tool_calls_of_another_provider_are_not_dropped():
    message = ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [{"id": "1"}]})
    with pytest.raises(UnsupportedFeature, match="ToolCallBlock"):
        to_messages([message])
