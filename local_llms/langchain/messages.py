"""From LangChain's messages to this package's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from local_llms.errors import PromptError, UnsupportedFeature
from local_llms.types import Message, Role, ToolCall

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
}
"""What the role of a ``ChatMessage`` means."""

_TEXT = {"text", "text-plain"}
# Calls stand in ``tool_calls`` as well.
_SAID_ELSEWHERE = {"tool_call", "tool_call_chunk", "invalid_tool_call", "tool_use", "function_call"}
_THOUGHTS = {"reasoning": "reasoning", "thinking": "thinking", "redacted_thinking": None}
"""Blocks of what a model thought, and where in them it stands; those of others may hold none of it."""


def to_messages(messages: Sequence[BaseMessage]) -> list[Message]:
    """The conversation as this package knows it; the text blocks of a message are joined.

    Raises UnsupportedFeature for a block that is not text, such as an image, and PromptError for an unknown role.
    """
    return list(_turns(messages))


def _turns(messages: Sequence[BaseMessage]) -> Iterator[Message]:
    names: dict[str, str] = {}
    for message in messages:
        if isinstance(message, AIMessage):
            names.update({call["id"]: call["name"] for call in message.tool_calls if call["id"]})
        if isinstance(message, (ToolMessage, FunctionMessage)):
            yield _result(message, names)
        else:
            yield _turn(message)


def _turn(message: BaseMessage) -> Message:
    if isinstance(message, AIMessage):
        calls = (ToolCall(call["id"] or "", call["name"], call["args"]) for call in message.tool_calls)
        return Message("assistant", _text(message), tuple(calls), reasoning=_reasoning(message))
    if isinstance(message, HumanMessage):
        return Message("user", _text(message))
    if isinstance(message, SystemMessage):
        return Message("system", _text(message))
    if isinstance(message, ChatMessage) and message.role in ROLES:
        return Message(ROLES[message.role], _text(message))
    role = message.role if isinstance(message, ChatMessage) else message.type
    raise PromptError(f"A message has the role {role!r}. Known: {', '.join(sorted(ROLES))}.")


def _result(message: ToolMessage | FunctionMessage, names: dict[str, str]) -> Message:
    name, failed = message.name, False
    if isinstance(message, ToolMessage):
        name = name or names.get(message.tool_call_id)
        failed = message.status == "error"
    return Message("tool", _text(message), name=name or "", failed=failed)


def _reasoning(message: AIMessage) -> str:
    """What a message says that its model thought: in blocks, or where providers without blocks put it."""
    if isinstance(message.content, list):
        blocks = [block for block in message.content if isinstance(block, dict) and block.get("type") in _THOUGHTS]
        if blocks:
            return "".join(str(block.get(_THOUGHTS[block["type"]] or "") or "") for block in blocks)
    thought = message.additional_kwargs.get("reasoning_content")
    return thought if isinstance(thought, str) else ""


def _text(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(_block(block) for block in message.content)


def _block(block: str | dict[str, Any]) -> str:
    if isinstance(block, str):
        return block
    kind = block.get("type", "text" if "text" in block else None)
    if kind in _TEXT:
        return str(block.get("text") or "")
    if kind in _SAID_ELSEWHERE or kind in _THOUGHTS:
        return ""
    raise UnsupportedFeature(
        f"A message holds a block of the type {kind!r}; this model reads text. "
        "Leave the block out, or put what it says into a text block."
    )
