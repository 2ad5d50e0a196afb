"""Tools, calls and results of a conversation, as a template's format has them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from local_llms.catalog.schema import Template, ToolFormat
from local_llms.prompts import MessageLike, render, text_of
from local_llms.types import Message, Tool, ToolCall


def spoken(messages: Sequence[Message], form: ToolFormat, tools: Sequence[Tool]) -> list[MessageLike]:
    """The messages for a template: calls and results where it has a place for them, else as text.

    A description in words goes to the end of the system message, or in front of the first question. Results in a row
    become one turn, where they are the user's.
    """
    turns = list(messages)
    if tools and form.describe:
        turns = _described(turns, _description(form, tools))
    return list(_turns(turns, form))


def as_dictionaries(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Tools as templates take them."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in tools
    ]


def call_text(form: ToolFormat, name: str, arguments: Mapping[str, Any]) -> str:
    """A call as the model writes it."""
    written = json.dumps(dict(arguments), ensure_ascii=False)
    if form.arguments == "python":
        written = ", ".join(f"{key}={_python(value)}" for key, value in arguments.items())
    return form.call.replace("$name", name).replace("$arguments", written)


def _python(value: Any) -> str:
    return repr(value) if value is None or isinstance(value, bool) else json.dumps(value, ensure_ascii=False)


def _description(form: ToolFormat, tools: Sequence[Tool]) -> str:
    template = Template(name="described-tools", source=form.describe)
    return text_of(render(template, [Message("user", "")], tools=as_dictionaries(tools))).strip()


def _described(turns: list[Message], description: str) -> list[Message]:
    for number, turn in enumerate(turns):
        if turn.role == "system":
            content = f"{turn.content}\n\n{description}" if turn.content else description
            return [*turns[:number], replace(turn, content=content), *turns[number + 1 :]]
    for number, turn in enumerate(turns):
        if turn.role == "user":
            return [*turns[:number], replace(turn, content=f"{description}\n\n{turn.content}"), *turns[number + 1 :]]
    return [Message("user", description), *turns]


def _turns(turns: Sequence[Message], form: ToolFormat) -> Iterator[MessageLike]:
    results: list[str] = []
    for turn in turns:
        if turn.role == "tool" and form.results == "user":
            results.append(_result(turn, form))
            continue
        if results:
            yield Message("user", "\n\n".join(results))
            results = []
        if turn.role == "tool":
            yield {"role": "tool", "content": _content(turn), "name": turn.name}
        elif turn.tool_calls:
            yield from _calling(turn, form)
        else:
            yield turn
    if results:
        yield Message("user", "\n\n".join(results))


def _content(turn: Message) -> str:
    """What a tool said; none of the families' formats has another place to say that it failed."""
    if turn.failed and not turn.content.lstrip().lower().startswith("error"):
        return f"Error: {turn.content}"
    return turn.content


def _result(turn: Message, form: ToolFormat) -> str:
    word = "Error" if turn.failed else "Result"
    return f"{word} of {turn.name or 'the tool'}:\n{turn.content}"


def _calling(turn: Message, form: ToolFormat) -> Iterator[MessageLike]:
    if form.calls == "text":
        calls = form.between.join(call_text(form, call.name, call.arguments) for call in turn.tool_calls)
        yield Message("assistant", "\n".join(filter(None, [turn.content, calls])), reasoning=turn.reasoning)
    elif form.calls == "message":
        listed = [_as_dictionary(call) for call in turn.tool_calls]
        # Where an answer holds one call at most, several of another model's are several answers.
        for some in [listed] if form.parallel else [[call] for call in listed]:
            thought = {"reasoning_content": turn.reasoning} if turn.reasoning else {}
            yield {"role": "assistant", "content": turn.content, **thought, "tool_calls": some}
    else:
        if turn.content:
            yield Message("assistant", turn.content)
        for call in turn.tool_calls:
            said = call_text(form, call.name, call.arguments)
            yield {"role": "assistant", "metadata": call.name, "content": said.removeprefix(f"{call.name}\n")}


def _as_dictionary(call: ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": dict(call.arguments)},
    }
