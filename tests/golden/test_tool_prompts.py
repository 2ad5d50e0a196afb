"""Prompts with tools, calls and results, to the byte as the families' own templates write them.

``tool_prompts.jsonl``: a case a line, with what the template of the model's makers makes of it and where that is from.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from local_llms.asking import write
from local_llms.catalog import find_template
from local_llms.prompts import text_of
from local_llms.tools import ToolUse
from local_llms.types import Message, Tool, ToolCall

FILE = Path(__file__).with_name("tool_prompts.jsonl")
GOLDENS = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]


def message(given: dict[str, Any]) -> Message:
    calls = (ToolCall(str(n), one["name"], one["arguments"]) for n, one in enumerate(given.get("tool_calls", ())))
    return Message(given["role"], given["content"], tuple(calls), given.get("name", ""))


def written(template: str, messages: list[Message], tools: list[Tool]) -> str:
    use = ToolUse.of(tools, None, None)
    return text_of(write(find_template(template)[1], messages, None, use, None))


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: f"{golden['template']}-{golden['case']}")
def test_equal_to_the_byte(golden: dict[str, Any]) -> None:
    tools = [Tool(**one) for one in golden["tools"]]
    messages = [message(one) for one in golden["messages"]]
    assert written(golden["template"], messages, tools).encode() == golden["expected"].encode()


def test_all_are_there() -> None:
    assert Counter(golden["template"] for golden in GOLDENS) == {"chatml": 7, "llama-3.1": 8, "glm4": 9}


NOW = Tool("now", "The time.")


def test_what_hermes_leaves_out_beside_a_call_stays() -> None:
    history = [Message("user", "a"), Message("assistant", "I look.", (ToolCall("1", "now", {}),))]
    expected = '<|im_start|>assistant\nI look.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call><|im_end|>\n'
    assert expected in written("chatml", history, [NOW])


def test_a_type_on_which_the_template_of_hermes_would_never_end() -> None:
    tool = Tool("f", "", {"type": "object", "properties": {"a": {"type": ["string", "null"]}, "b": {"type": "null"}}})
    assert '"f(a: Union[str,Any], b: Any) - ' in written("chatml", [Message("user", "a")], [tool])


def test_several_calls_of_another_model_are_several_answers_of_llama() -> None:
    """Its own template raises an error there; nothing is lost here."""
    calls = (ToolCall("1", "now", {}), ToolCall("2", "get", {"x": 1}))
    history = [Message("user", "a"), Message("assistant", "", calls), Message("tool", "noon", name="now")]
    expected = (
        '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "now", "parameters": {}}<|eot_id|>'
        '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "get", "parameters": {"x": 1}}<|eot_id|>'
        '<|start_header_id|>ipython<|end_header_id|>\n\n"noon"<|eot_id|>'
    )
    assert expected in written("llama-3.1", history, [NOW])
