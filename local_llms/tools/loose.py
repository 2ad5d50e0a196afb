"""Messages and tools as dictionaries, told to a template as those of a request are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from local_llms.catalog.schema import Template
from local_llms.errors import OptionError
from local_llms.prompts import MessageLike
from local_llms.tools.format import format_of
from local_llms.tools.history import as_dictionaries, spoken
from local_llms.types import Message, Role, Tool


def told(
    template: Template, messages: Sequence[MessageLike], tools: Sequence[Mapping[str, Any]]
) -> tuple[Sequence[MessageLike], Sequence[Mapping[str, Any]] | None]:
    """The messages and the tools for ``render``: a template that has no place for tools is told of them in words.

    ``tools``: each with ``name``, ``description`` and ``parameters``, or that as ``function``. Raises OptionError for
    other shapes; a message of a wrong one is left for ``render`` to refuse.
    """
    known = [_tool(place, each) for place, each in enumerate(tools, start=1)]
    form = format_of(template)
    turns = [_message(each) for each in messages]
    if not form.describe or None in turns:
        return messages, as_dictionaries(known) if known else None
    return spoken(cast("list[Message]", turns), form, known), None


def _message(given: MessageLike) -> Message | None:
    if isinstance(given, Message):
        return given
    role, content = (given.get("role"), given.get("content")) if isinstance(given, Mapping) else (None, None)
    if role not in get_args(Role) or not isinstance(content, str):
        return None
    thought = given.get("reasoning_content")
    return Message(cast(Role, role), content, reasoning=thought if isinstance(thought, str) else "")


def _tool(place: int, given: object) -> Tool:
    function = given.get("function", given) if isinstance(given, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise OptionError(f"Tool {place} must be an object with a name, and perhaps a description and parameters.")
    return Tool(function["name"], str(function.get("description", "")), dict(function.get("parameters", {})))
