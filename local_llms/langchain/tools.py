"""From LangChain's tools, choices and response formats to this package's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.utils.function_calling import convert_to_openai_tool

from local_llms.errors import OptionError
from local_llms.types import Tool

_CHOICES = {"any": "required", "required": "required", "auto": "auto", "none": "none"}


def to_tools(tools: Sequence[Any]) -> list[Tool]:
    """Tools from what LangChain takes as one: its own tools, functions, pydantic models, dictionaries, runnables."""
    return [tool if isinstance(tool, Tool) else _tool(tool) for tool in tools]


def _tool(tool: Any) -> Tool:
    function = convert_to_openai_tool(tool)["function"]
    return Tool(function["name"], function.get("description") or "", function.get("parameters") or {})


def to_choice(choice: Any, names: Sequence[str]) -> str | None:
    """A tool's name, "auto", "required" or "none". Raises OptionError for what says none of these."""
    if choice is None or choice is False:
        return None
    if choice is True:
        if len(names) != 1:
            raise OptionError("tool_choice=True means the only tool there is. Name one of several.")
        return names[0]
    if isinstance(choice, Mapping):
        named = choice.get("function", choice)
        choice = named.get("name") if isinstance(named, Mapping) else None
    if not isinstance(choice, str):
        raise OptionError('tool_choice takes "auto", "any", "none", a tool\'s name, or {"function": {"name": …}}.')
    # A tool's name comes first, whatever it is called.
    return choice if choice in names else _CHOICES.get(choice, choice)


def to_schema(response_format: Any) -> Any:
    """The schema of OpenAI's ``response_format``; None for plain text. Raises OptionError."""
    if not isinstance(response_format, Mapping):
        return response_format
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    described = response_format.get("json_schema")
    if kind == "json_schema" and isinstance(described, Mapping) and "schema" in described:
        return described["schema"]
    raise OptionError(
        'response_format takes a schema, {"type": "text"}, {"type": "json_object"}, or '
        '{"type": "json_schema", "json_schema": {"schema": …}}.'
    )
