"""What the grammar of a call takes from a tool, down to the corners."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from local_llms.catalog import find_template
from local_llms.constraints import Compiler
from local_llms.errors import ConstraintError
from local_llms.models import read_reply
from local_llms.testing.scripted import EOS, ScriptedBackend, say
from local_llms.tools import ToolUse, constraint_for, format_of, spoken
from local_llms.types import Message, Tool
from tests.unit.constraints.conftest import noise
from tests.unit.tools.test_formats import NOW, loaded

PARAMETERS: dict[str, dict[str, Any]] = {
    "the parameters are a reference": {
        "$ref": "#/$defs/one",
        "$defs": {"one": {"type": "object", "properties": {"a": {"enum": [7]}}, "required": ["a"]}},
    },
    "a parameter is a reference": {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/seven"}},
        "required": ["a"],
        "$defs": {"seven": {"enum": [7]}},
    },
    "a truth value that is listed": {
        "type": "object",
        "properties": {"a": {"type": "boolean", "enum": [True]}},
        "required": ["a"],
    },
}
RIGHT = {"the parameters are a reference": 7, "a parameter is a reference": 7, "a truth value that is listed": True}


@pytest.mark.parametrize("kind", PARAMETERS)
@pytest.mark.parametrize("template", ["chatml", "chatglm3"])
def test_parameters_are_kept_to(template: str, kind: str) -> None:
    tool = Tool("f", "", PARAMETERS[kind])
    with loaded(noise, template) as model:
        for seed in range(8):
            answer = model.generate("x", tools=[tool], tool_choice="f", seed=seed, max_tokens=300)
            (call,) = read_reply(model.reader([tool], "f"), answer.text)[1]
            assert call.arguments == {"a": RIGHT[kind]}


@pytest.mark.parametrize("parameters", [{"anyOf": [{"type": "object"}, {"type": "null"}]}, {"$ref": "#/$defs/none"}])
def test_keyword_arguments_need_a_list_of_them(parameters: dict[str, Any]) -> None:
    tool = Tool("f", "", {**parameters, "$defs": {"none": {"$ref": "#/$defs/none"}}})
    with loaded(noise, "chatglm3") as model, pytest.raises(ConstraintError, match="keyword arguments"):
        model.generate("x", tools=[tool], tool_choice="f")


@pytest.mark.parametrize("kind", ["nothing", "an object"])
def test_a_tool_of_which_nothing_is_said_takes_nothing(kind: str) -> None:
    tool = Tool("f", "", {} if kind == "nothing" else {"type": "object"})
    with loaded(noise) as model:
        answer = model.generate("x", tools=[tool], tool_choice="f", seed=1, max_tokens=300)
        assert [call.arguments for call in read_reply(model.reader([tool], "f"), answer.text)[1]] == [{}]


def test_a_tool_that_is_named_is_called_once() -> None:
    one = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    with loaded(say(f"{one}\n{one}")) as model:
        for choice, count in (("now", 1), ("required", 2)):
            answer = model.generate("x", tools=[NOW], tool_choice=choice, parallel_tool_calls=True, temperature=0)
            assert len(read_reply(model.reader([NOW], choice), answer.text)[1]) == count


@pytest.mark.parametrize("template", ["chatml", "llama-3.1", "chatglm3"])
def test_a_blank_in_front_of_a_call(template: str) -> None:
    """Many models begin with one; where a newline begins an answer in words, a call has none."""
    form = format_of(find_template(template)[1])
    constraint = constraint_for(form, ToolUse((NOW,), "required"))
    assert constraint is not None
    allowed = Compiler(ScriptedBackend()).compile(constraint).matcher([EOS]).allowed()
    first = ord((form.marker or "now")[0])
    expected = {first} if template == "chatglm3" else {first, ord(" "), ord("\n")}
    assert set(np.flatnonzero(allowed).tolist()) == expected


@pytest.mark.parametrize("content", ["", "Be brief."])
def test_where_tools_are_described(content: str) -> None:
    """Behind what the system message says, or as the system message."""
    form = format_of(find_template("alpaca")[1])
    system, user = spoken([Message("system", content), Message("user", "Hi")], form, [NOW])
    assert isinstance(system, Message)
    described = "You can use these tools:" if not content else "Be brief.\n\nYou can use these tools:"
    assert system.content.startswith(described)
    assert user == Message("user", "Hi")
    (alone,) = spoken([Message("user", "Hi")], form, [NOW])
    assert isinstance(alone, Message)
    assert alone.content.startswith("You can use these tools:")
    assert alone.content.endswith("\n\nHi")
