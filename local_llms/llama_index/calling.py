"""Tools: what llama-index gives as one, and the calls of an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole, ToolCallBlock
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools import BaseTool

from local_llms.errors import NoToolCall, OptionError
from local_llms.types import Tool


class Calling(FunctionCallingLLM):
    """What ``chat_with_tools`` and its siblings, ``predict_and_call`` and agents stand on."""

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: str | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or ())
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        if user_msg is not None:
            messages.append(user_msg)
        choice = to_choice(tool_choice) or ("required" if tool_required else None)
        # As dictionaries, since events tell of them and are written down.
        told = [as_dictionary(tool) for tool in to_tools(tools)]
        asked: dict[str, Any] = {"tools": told, "tool_choice": choice} if told else {}
        if told and allow_parallel_tool_calls:
            asked["parallel_tool_calls"] = True
        return {"messages": messages, **{name: value for name, value in asked.items() if value is not None}, **kwargs}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The calls of an answer, in its order. Raises NoToolCall where there is none and there must be one."""
        blocks = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        if not blocks and error_on_no_tool_call:
            raise NoToolCall(f"The answer calls no tool: {response.message.content!r}. Ask with tool_required=True.")
        return [
            ToolSelection(
                tool_id=block.tool_call_id or "", tool_name=block.tool_name, tool_kwargs=arguments(block.tool_kwargs)
            )
            for block in blocks
        ]


def arguments(given: Mapping[str, Any] | str) -> dict[str, Any]:
    """The arguments of a call; none while their text is not complete."""
    if not isinstance(given, str):
        return dict(given)
    try:
        value = json.loads(given)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def to_tools(tools: Sequence[Any]) -> list[Tool]:
    """Tools from llama-index's, or from dictionaries as OpenAI has them. Raises OptionError for anything else."""
    return [_tool(tool) for tool in tools]


def _tool(tool: Any) -> Tool:
    if isinstance(tool, Tool):
        return tool
    if isinstance(tool, BaseTool):
        facts = tool.metadata
        return Tool(facts.get_name(), facts.description or "", facts.get_parameters_dict())
    function = tool.get("function", tool) if isinstance(tool, Mapping) else {}
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise OptionError(f"tools holds {tool!r}; give llama-index's tools, or dictionaries as OpenAI has them.")
    return Tool(function["name"], function.get("description") or "", function.get("parameters") or {})


def as_dictionary(tool: Tool) -> dict[str, Any]:
    """A tool as OpenAI has it."""
    described = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": described}


def to_choice(choice: Any) -> str | None:
    """A tool's name, "auto", "required" or "none" from what OpenAI's interface takes. Raises OptionError."""
    if isinstance(choice, Mapping):
        named = choice.get("function", choice)
        choice = named.get("name") if isinstance(named, Mapping) else None
        if choice is None:
            raise OptionError('tool_choice takes "auto", "required", "none", a name, or {"function": {"name": …}}.')
    return "required" if choice == "any" else choice
