"""From llama-index's messages to this package's."""

from __future__ import annotations

import json
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
from local_llms.types import Message, Role

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

    Prompt templates have no place for tools, so tools in the history are written as text: a call as a line of JSON
    in the assistant's turn, the results that follow it as one turn of the user.

    Raises UnsupportedFeature for a block that is not text, such as an image.
    """
    return list(_turns(messages))


def _turns(messages: Sequence[ChatMessage]) -> Iterator[Message]:
    results: list[str] = []
    names: dict[str, str] = {}
    for message in messages:
        if message.role not in ROLES:
            results.append(_result(message, names))
            continue
        if results:
            yield Message("user", "\n\n".join(results))
            results = []
        names.update({block.tool_call_id or "": block.tool_name for block in _calls(message)})
        yield Message(ROLES[message.role], _text(message))
    if results:
        yield Message("user", "\n\n".join(results))


def _calls(message: ChatMessage) -> list[ToolCallBlock]:
    calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if not calls and message.additional_kwargs.get("tool_calls"):
        raise UnsupportedFeature(
            "A message holds tool calls in additional_kwargs, in the form of another provider. Put them into the "
            "message as ToolCallBlocks."
        )
    return calls


def _result(message: ChatMessage, names: dict[str, str]) -> str:
    name = message.additional_kwargs.get("name") or names.get(message.additional_kwargs.get("tool_call_id") or "")
    return f"Result of {name or 'the tool'}:\n{_text(message)}"


def _text(message: ChatMessage) -> str:
    # What a model thought on the way is not sent back to it.
    return "\n".join(_block(block) for block in message.blocks if not isinstance(block, ThinkingBlock))


def _block(block: ContentBlock) -> str:
    if isinstance(block, TextBlock):
        return block.text
    if isinstance(block, ToolCallBlock):
        return json.dumps({"name": block.tool_name, "arguments": block.tool_kwargs})
    raise UnsupportedFeature(
        f"A message holds a block of the type {block.block_type!r}; this model reads text. "
        "Leave the block out, or put what it says into a TextBlock."
    )
