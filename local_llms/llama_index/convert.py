"""From llama-index's messages to this package's."""

from __future__ import annotations

from collections.abc import Sequence

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock

from local_llms.errors import UnsupportedFeature
from local_llms.types import Message, Role

ROLES: dict[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}


def to_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """The conversation as this package knows it; several text blocks of a message become lines of one text.

    Raises UnsupportedFeature for a block that is not text, such as an image or a tool call.
    """
    for message in messages:
        for block in message.blocks:
            if not isinstance(block, TextBlock):
                raise UnsupportedFeature(
                    f"A message holds a block of the kind {block.block_type!r}; this model reads text. "
                    "Leave the block out, or put its content into a TextBlock."
                )
        if message.additional_kwargs.get("tool_calls"):
            raise UnsupportedFeature("A message holds tool calls; this model reads text. Write them into its content.")
    return [Message(ROLES[message.role], message.content or "") for message in messages]
