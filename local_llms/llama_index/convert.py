"""From llama-index's messages to this package's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llama_index.core.base.llms.types import (
    ChatMessage,
    ContentBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from local_llms.errors import UnsupportedFeature
from local_llms.llama_index.calling import arguments
from local_llms.types import Message, Role, ToolCall

ROLES: dict[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
}


def to_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """The conversation as this package knows it; the text blocks of a message become lines of one text.

    Raises UnsupportedFeature for a block that is not text, such as an image.
    """
    return list(_turns(messages))


def _turns(messages: Sequence[ChatMessage]) -> Iterator[Message]:
    names: dict[str, str] = {}
    for message in messages:
        if message.role not in ROLES:
            yield _result(message, names)
            continue
        calls = _calls(message)
        names.update({call.id: call.name for call in calls})
        role = ROLES[message.role]
        thought = _reasoning(message) if role == "assistant" else ""
        yield Message(role, _text(message), tuple(calls), reasoning=thought)


def _calls(message: ChatMessage) -> list[ToolCall]:
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    calls = [ToolCall(block.tool_call_id or "", block.tool_name, arguments(block.tool_kwargs)) for block in blocks]
    if not calls and message.additional_kwargs.get("tool_calls"):
        raise UnsupportedFeature(
            "A message holds tool calls in additional_kwargs, in the form of another provider. Put them into the "
            "message as ToolCallBlocks."
        )
    return calls


def _result(message: ChatMessage, names: dict[str, str]) -> Message:
    name = message.additional_kwargs.get("name") or names.get(message.additional_kwargs.get("tool_call_id") or "")
    return Message("tool", _text(message), name=name or "")


def _reasoning(message: ChatMessage) -> str:
    return "".join(block.content or "" for block in message.blocks if isinstance(block, ThinkingBlock))


def _text(message: ChatMessage) -> str:
    said = (block for block in message.blocks if not isinstance(block, ThinkingBlock | ToolCallBlock))
    return "\n".join(_block(block) for block in said)


def _block(block: ContentBlock) -> str:
    if isinstance(block, TextBlock):
        return block.text
    raise UnsupportedFeature(
        f"A message holds a block of the type {block.block_type!r}; this model reads text. "
        "Leave the block out, or put what it says into a TextBlock."
    )
