"""Every template's way with tools: a forced call parses and names the tool, free text is text, history is written."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest

from local_llms.catalog import families, find_template
from local_llms.catalog.schema import ToolFormat
from local_llms.errors import OptionError
from local_llms.models import LoadedModel, load_model, read_reply
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model
from local_llms.tools import ToolUse, format_of
from local_llms.types import Message, Tool, ToolCall
from tests.unit.constraints.conftest import noise

WEATHER = Tool(
    "get_weather",
    "The weather of a city.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
            "rain": {"type": "boolean"},
            "units": {"enum": ["metric", "imperial"]},
        },
        "required": ["city"],
    },
)
NOW = Tool("now", "The time.")
NAMES = ("alpaca", "vicuna-v1.1", "dolly", "rwkv-world", "rwkv-g1", "chatglm3", "glm4", "chatml", "llama-3.1")
TEMPLATES = sorted(template.name for family in families().values() for template in family.templates)


Reply = tuple[str, list[ToolCall]]


@contextmanager
def loaded(script, template="chatml"):
    def make() -> ScriptedBackend:
        return ScriptedBackend(script, context_length=8192, cache_tokens=1 << 18)

    with scripted_model(make) as path, load_model(path, template=template) as model:
        yield model


def ask(model: LoadedModel, tools: list[Tool], choice: str | None = None, **options: object) -> Reply:
    answer = model.generate("How is it?", tools=tools, tool_choice=choice, **options)
    return read_reply(model.reader(tools, choice), answer.text)


@pytest.mark.parametrize("template", NAMES)
def test_a_forced_call_is_one(template):
    """100 of 100, from logits that are noise."""
    with loaded(noise, template) as model:
        streams = [
            model.submit("How is it?", tools=[WEATHER, NOW], tool_choice="get_weather", seed=seed, max_tokens=900)
            for seed in range(100)
        ]
        for stream in streams:
            said, calls = read_reply(model.reader([WEATHER, NOW], "get_weather"), stream.result().text)
            assert not said
            assert [call.name for call in calls] == ["get_weather"]
            check(calls[0])


def check(call: ToolCall) -> None:
    arguments = dict(call.arguments)
    if call.name == "now":
        assert arguments == {}
        return
    assert isinstance(arguments.pop("city"), str)
    assert 1 <= arguments.pop("days", 1) <= 9
    assert arguments.pop("rain", True) in (True, False)
    assert arguments.pop("units", "metric") in ("metric", "imperial")
    assert not arguments


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_has_a_way(template):
    """With a conversation that holds a call and its result, where the template takes turns in that order."""
    history = [
        Message("user", "How is it?"),
        Message("assistant", "", (ToolCall("1", "get_weather", {"city": "Köln", "rain": True}),)),
        Message("tool", "sunny", name="get_weather"),
    ]
    with loaded(noise, template) as model:
        # Noise would not close a thought.
        bounds = {"max_tokens": 900, "max_thinking_tokens": 20}
        answer = model.generate("How is it?", tools=[WEATHER, NOW], tool_choice="required", seed=1, **bounds)
        _, calls = read_reply(model.reader([WEATHER, NOW], "required"), answer.text)
        assert len(calls) == 1
        check(calls[0])
        told = model.render(history)
        assert "get_weather" in told
        assert "Köln" in told
        assert "sunny" in told


@pytest.mark.parametrize("template", NAMES)
def test_a_result_that_is_an_error_says_so(template):
    def told(content: str, failed: bool) -> str:
        result = Message("tool", content, name="now", failed=failed)
        return model.render([Message("user", "Hi"), Message("assistant", "", (ToolCall("1", "now", {}),)), result])

    with loaded(noise, template) as model:
        assert "Error" not in told("broken", failed=False)
        assert "Error" in told("broken", failed=True)
        assert "broken" in told("broken", failed=True)
        # What says so itself is left as it is.
        assert told("Error: broken", failed=True).count("Error: ") == 1


@pytest.mark.parametrize("template", NAMES)
def test_in_auto_text_is_text_and_a_call_a_call(template):
    form = format_of(find_template(template)[1])
    call = form.call.replace("$name", "now").replace("$arguments", "{}" if form.arguments == "json" else "")
    lead = form.text
    with loaded(say(f"{lead}It is late. {{}} <b>"), template) as model:
        assert ask(model, [WEATHER, NOW], temperature=0) == ("It is late. {} <b>", [])
    with loaded(say(call), template) as model:
        said, calls = ask(model, [WEATHER, NOW], temperature=0)
        assert not said
        assert [(one.name, one.arguments) for one in calls] == [("now", {})]


def test_text_in_front_of_a_call():
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    with loaded(say(f"Let me look.\n{call}")) as model:
        said, calls = ask(model, [NOW], temperature=0)
        assert said == "Let me look."
        assert [one.name for one in calls] == ["now"]


def test_in_auto_a_call_cannot_go_wrong():
    """What the model would write after the marker is no call; the mask makes it one."""
    with loaded(say('Well. <tool_call>{"nam": "later"}</tool_call> and more')) as model:
        said, calls = ask(model, [WEATHER, NOW], temperature=0, max_tokens=900)
        assert said == "Well."
        assert len(calls) == 1
        check(calls[0])


def test_several_calls_where_they_are_asked_for():
    one = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    with loaded(say("\n".join([one] * 20))) as model:
        assert len(ask(model, [NOW], "required", temperature=0)[1]) == 1
        answer = model.generate("x", tools=[NOW], tool_choice="required", parallel_tool_calls=True, temperature=0)
        calls = read_reply(model.reader([NOW]), answer.text)[1]
        assert len(calls) == 8
        assert len({call.id for call in calls}) == 8


def test_none_calls_nothing():
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    with loaded(say(call)) as model:
        assert ask(model, [NOW], "none", temperature=0) == (call, [])


def test_a_schema_for_the_answer_that_calls_nothing():
    answer = {"type": "object", "properties": {"time": {"type": "string", "maxLength": 5}}, "required": ["time"]}
    with loaded(say('{"time": "noon"}')) as model:
        said, calls = ask(model, [NOW], schema=answer, temperature=0)
        assert json.loads(said) == {"time": "noon"}
        assert not calls
    with loaded(say('<tool_call>\n{"name": "now"')) as model:
        said, calls = ask(model, [NOW], schema=answer, temperature=0)
        assert [call.name for call in calls] == ["now"]


def test_stop_strings_end_text_and_no_call():
    tool = Tool("note", "", {"type": "object", "properties": {"text": {"type": "string", "maxLength": 30}}})
    call = '<tool_call>\n{"name": "note", "arguments": {"text": "a END b"}}\n</tool_call>'
    with loaded(say(f"Yes END no {call}")) as model:
        answer = model.generate("x", tools=[tool], stop="END", temperature=0)
        assert answer.text == "Yes "
        assert answer.stop_match == "END"
    with loaded(say(call)) as model:
        assert ask(model, [tool], stop="END", temperature=0)[1][0].arguments == {"text": "a END b"}


@pytest.mark.parametrize(
    ("tools", "choice", "words"),
    [
        ([NOW], "later", "names no tool"),
        ([NOW, NOW], None, "must differ"),
        ([Tool('a"b')], None, "quotes"),
        ([], "required", "without tools"),
        ([Tool(f"t{n}") for n in range(200)], None, "at most 128"),
    ],
)
def test_mistakes(tools, choice, words):
    with pytest.raises(OptionError, match=words):
        ToolUse.of(tools, choice, None)


def test_tools_and_another_constraint_contradict_each_other():
    with loaded(noise) as model, pytest.raises(OptionError, match="regex= and tools"):
        model.generate("x", tools=[NOW], regex="a")


@pytest.mark.parametrize("call", ["no placeholders", "$arguments $name", "x $name $arguments", "<tool_call> $name"])
def test_a_format_without_a_call(call):
    with pytest.raises(ValueError, match="call needs"):
        ToolFormat(call=call)
