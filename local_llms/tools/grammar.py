"""Grammars of answers that may call tools: a call is well-formed, names a real tool, and fits its parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from local_llms.catalog.schema import ToolFormat
from local_llms.constraints import Constraint, json_value, literal, terminal
from local_llms.errors import ConstraintError
from local_llms.tools.choice import ToolUse
from local_llms.types import Tool

MOST_CALLS = 8
"""Calls in one answer: a small model that may go on for ever does."""

_ANYTHING = "(?s:.*)"


def constraint_for(form: ToolFormat, use: ToolUse, answer: str | None = None) -> Constraint | None:
    """What an answer with these tools must look like; None where anything goes.

    ``answer``: a rule's body for what the answer is where it calls no tool, such as a JSON document; None for free
    text. Raises ConstraintError where a tool's parameters cannot be kept to.
    """
    if not use.callable:
        return None if answer is None else Constraint(f"start: /[ \\n]?/ answer\nanswer: {answer}")
    rules = [f"rest{number}: {body}" for number, tool in enumerate(use.callable) for body in _rest(form, number, tool)]
    rules.append("rest: " + " | ".join(f"rest{number}" for number in range(len(use.callable))))
    several = use.parallel and form.parallel
    more = f"({_text(form.between + form.marker)} rest){{0,{MOST_CALLS - 1}}}" if several else ""
    calls = f"{_text(form.marker)} rest {more}" if form.marker else f"rest {more}"
    lead = "" if form.text else "/[ \\n]?/"
    if use.choice != "auto":
        rules.append(f"start: {lead} {calls}")
        return Constraint("\n".join(rules))
    if answer is not None:
        rules += [f"start: {_text(form.text)} answer | {lead} {calls}", f"answer: {answer}"]
        return Constraint("\n".join(rules))
    if form.anywhere:
        # The head ends at the first marker there is, whatever else the text before it might become.
        rules += [
            f"start: text | head rest {more}",
            f"text: /{_ANYTHING}/",
            f"head[lazy]: {terminal(_ANYTHING + literal(form.marker))}",
        ]
    elif form.text:
        rules += [f"start: {_text(form.text)} text | {calls}", f"text: /{_ANYTHING}/"]
    else:
        first = literal(form.marker[:1])
        rules += [f"start: text | {lead} {calls}", rf"text: /[ \n]*[^ \n{first}]{_ANYTHING}/"]
    return Constraint("\n".join(rules), stops=True)


def _rest(form: ToolFormat, number: int, tool: Tool) -> Iterator[str]:
    """The body of the rule of one tool's call behind the marker."""
    before, _, after = form.call.removeprefix(form.marker).partition("$arguments")
    head = _text(before.replace("$name", tool.name))
    if form.arguments == "json":
        yield f"{head} value{number} {_text(after)}\nvalue{number}: {json_value(_parameters(tool))}"
        return
    names = f"a{number}_"
    rules = "\n".join(_keywords(names, tool))
    yield f"{head} {names}0f {_text(after)}\n{rules}"


def _parameters(tool: Tool) -> dict[str, Any]:
    """The schema of the arguments; a tool of which nothing is said takes none."""
    given = dict(tool.parameters)
    # Beside another keyword, what a reference or an alternative says is not all, and so could not be kept to alone.
    if {"$ref", "anyOf", "allOf", "oneOf"}.intersection(given):
        return given
    schema = {"type": "object", **given}
    says = {"properties", "additionalProperties", "patternProperties"}
    return schema if says.intersection(schema) else {**schema, "properties": {}}


def _listed(tool: Tool) -> dict[str, Any]:
    """The parameters with their properties at hand, as keyword arguments need them. Raises ConstraintError."""
    whole = schema = _parameters(tool)
    for name in str(schema.get("$ref", "#")).split("/")[1:]:
        schema = schema.get(name, {}) if isinstance(schema, Mapping) else {}
    if not isinstance(schema, Mapping) or {"$ref", "anyOf", "allOf", "oneOf"}.intersection(schema):
        raise ConstraintError(
            f"The tool {tool.name!r} cannot be called with keyword arguments, which this model's format has: its "
            "parameters must be an object that lists its properties."
        )
    return {**{key: whole[key] for key in ("$defs", "definitions") if key in whole}, **schema}


def _keywords(names: str, tool: Tool) -> Iterator[str]:
    """Rules of ``a=1, b="x"``, in the order of the properties; each has a form for where a comma goes before."""
    schema = _listed(tool)
    properties = list(schema.get("properties", {}).items())
    required = schema.get("required", ())
    for number, (name, described) in enumerate(properties):
        value = f"{names}{number}v"
        yield f"{value}: {_python(described, schema)}"
        following = f"{names}{number + 1}m"
        for first in (True, False):
            one = f"{_text(('' if first else ', ') + name + '=')} {value} {following}"
            skip = f" | {names}{number + 1}{'f' if first else 'm'}"
            yield f"{names}{number}{'f' if first else 'm'}: {one}{'' if name in required else skip}"
    yield f'{names}{len(properties)}f: ""'
    yield f'{names}{len(properties)}m: ""'


def _python(described: Any, whole: Mapping[str, Any]) -> str:
    """A value as Python writes it: JSON, but for the truth values."""
    if isinstance(described, Mapping) and described.get("type") == "boolean" and "enum" not in described:
        return '"True" | "False"'
    definitions = {key: whole[key] for key in ("$defs", "definitions") if key in whole}
    return json_value({**described, **definitions} if isinstance(described, Mapping) else described)


def _text(text: str) -> str:
    """A text as a grammar writes it."""
    return json.dumps(text, ensure_ascii=False)
