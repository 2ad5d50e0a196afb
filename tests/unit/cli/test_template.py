"""``local-llms template`` on the catalog and on a scripted model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from local_llms.catalog import families
from local_llms.cli.marked import marked, quoted, spoken
from local_llms.prompts import render_prompt
from local_llms.templates import EXAMPLE, Segment, places, preview_template
from local_llms.testing.scripted import ScriptedBackend
from local_llms.testing.scripted_model import ScriptedModel, scripted_model
from tests.unit.cli.conftest import Run

TEMPLATES = [template.name for family in families().values() for template in family.templates]


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with scripted_model(ScriptedBackend, template="chatml") as made:
        yield made


def parts(output: str) -> list[tuple[str, str]]:
    """The lines that a pipe gets, read as a program would."""
    return [(line.split()[0], json.loads(line.split(maxsplit=1)[1])) for line in output.splitlines()]


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_shows_the_example(run: Run, name: str) -> None:
    result = run("template", name)
    assert result.exit_code == 0, result.output
    shown = parts(result.stdout)
    assert {origin for origin, _ in shown} == (
        {"structure", "content"} if name != "plain" else {"content"} | {"structure"}
    )
    assert "".join(text for _, text in shown) == render_prompt(name, EXAMPLE)
    content = "".join(text for origin, text in shown if origin == "content")
    assert all(message.content in content for message in EXAMPLE)


def test_a_conversation_of_words(run: Run) -> None:
    result = run("template", "chatml", "Hi", "Hello", "Bye", "--system", "Be kind.")
    assert [text for origin, text in parts(result.stdout) if origin == "content"] == ["Be kind.", "Hi", "Hello", "Bye"]
    assert '"<|im_end|>" "<|endoftext|>"' in result.stderr
    assert "ollama/ollama" in result.stderr


def test_an_input_has_a_place(run: Run) -> None:
    shown = parts(run("template", "alpaca", "Translate.", "--input", "Good\u200b morning").stdout)
    assert ("structure", "\n\n### Input:\n") in shown
    assert ("content", "Good\u200b morning") in shown


def test_the_text_alone(run: Run) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    assert run("template", "alpaca-qlora", "Hi", "--text").stdout == render_prompt("alpaca-qlora", messages)
    closed = run("template", "chatml", "Hi", "--text", "--no-generation-prompt")
    assert closed.stdout == "<|im_start|>user\nHi<|im_end|>\n"
    assert closed.stderr == ""


def test_an_answer_is_continued(run: Run) -> None:
    assert run("template", "chatml", "Hi", "Well, ", "--continue", "--text").stdout.endswith("assistant\nWell, ")
    assert run("template", "chatml", "--continue", "--text").stdout.endswith("Paris.")


def test_messages_and_tools_of_a_file(run: Run, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "", "metadata": "weather"}]
    tools = [{"name": "weather", "description": "Tells it.", "parameters": {}}]
    (tmp_path / "messages.json").write_text(json.dumps(messages), "utf-8")
    (tmp_path / "tools.json").write_text(json.dumps(tools), "utf-8")
    files = ("--messages", str(tmp_path / "messages.json"), "--tools", str(tmp_path / "tools.json"))
    assert run("template", "chatglm3", *files, "--text").stdout == render_prompt("chatglm3", messages, tools=tools)
    piped = run("template", "chatglm3", "--messages", "-", "--text", input=json.dumps(messages))
    assert piped.stdout == render_prompt("chatglm3", messages)


def test_the_tokens_of_a_model(run: Run, model: ScriptedModel) -> None:
    result = run("template", "chatml", "A<|im_end|>", "--model", model.path)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if line.lstrip()[:1].isdigit()]
    assert rows[0] == ["0", "256", "marker", '"<s>"']
    assert rows[1] == ["1", "258", "marker", '"<|im_start|>"']
    assert ["7", "65", "content", '"A"'] in rows
    assert [row[1] for row in rows if row[2] == "marker"] == ["256", "258", "259", "258"]
    assert not model.backend.decodes, "it computed"


def test_the_models_own_template(run: Run, model: ScriptedModel) -> None:
    assert run("template", "--model", model.path, "--text").stdout == render_prompt("chatml", EXAMPLE)
    assert run("template", "alpaca", "--model", model.path, "--text").stdout == render_prompt("alpaca", EXAMPLE)


def test_without_a_name_they_are_listed(run: Run) -> None:
    result = run("template")
    assert result.exit_code == 0, result.output
    for name in TEMPLATES:
        assert any(line.split()[0] == name for line in result.stdout.splitlines()), name
    line = next(line for line in result.stdout.splitlines() if line.startswith("chatglm3 *"))
    assert "turns, system, tools" in line
    assert "czk1997/chatglm3-copy" in line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("alpca",), "Did you mean 'alpaca'?"),
        (("rwkv",), "The family rwkv has rwkv-world (its classes use it), rwkv-raven, "),
        (("minilm",), "The family minilm has none."),
        (("chatml", "--input", "x"), "no place for a separate input"),
        (("gemma", "--system", "x"), "it has no place for a system message"),
        (("chatml", "Hi", "--continue"), "Only a message of the assistant can be continued"),
        (("chatml", "Hi", "--messages", "x.json"), "not as both"),
        (("chatml", "--messages", "no/such.json"), "no/such.json cannot be read: No such file"),
        (("chatml", "--messages", "-"), "standard input is not JSON"),
        (("chatml", "--tools", "-"), "standard input is not JSON"),
        (("alpca", "--model", "no/such.gguf"), "Did you mean 'alpaca'?"),
        (("--model", "smolm2-135m-instruct"), "'smollm2-135m-instruct'"),
    ],
)
def test_mistakes_are_one_line(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    result = run("template", *arguments, input="{")
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert sentence in result.stderr


TOOLS = [{"name": "weather", "description": "Tells it.", "parameters": {"type": "object", "properties": {}}}]


def test_a_template_without_tools_is_told_of_them_in_words(run: Run, model: ScriptedModel) -> None:
    asked = ("template", "alpaca", "Rain?", "--tools", "-")
    shown = parts(run(*asked, input=json.dumps(TOOLS)).stdout)
    described = next(text for origin, text in shown if origin == "content")
    assert described.index("weather") < described.index("<tool_call>") < described.index("Rain?")
    loaded = run(*asked, "--model", model.path, "--text", input=json.dumps(TOOLS)).stdout
    assert loaded == "".join(text for _, text in shown)


def test_results_of_tools_are_shown_as_they_are_sent(run: Run) -> None:
    messages = [{"role": "user", "content": "Rain?"}, {"role": "tool", "content": "No."}]
    shown = run("template", "alpaca", "--messages", "-", "--text", input=json.dumps(messages)).stdout
    assert "### Instruction:\nResult of the tool:\nNo." in shown


@pytest.mark.parametrize("tools", ["[1]", '[{"description": "x"}]', '[{"function": 5}]'])
def test_what_is_no_tool_is_refused(run: Run, tools: str) -> None:
    for name in ("chatglm3", "alpaca"):
        result = run("template", name, "--tools", "-", input=tools)
        assert result.exit_code == 1
        assert (
            result.stderr == "Error: Tool 1 must be an object with a name, and perhaps a description and parameters.\n"
        )


def test_parts_that_are_tokenized_apart_are_one_line(run: Run) -> None:
    assert [origin for origin, _ in parts(run("template", "chatglm3", "Hi").stdout)] == [
        "structure",
        "content",
        "structure",
    ]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [('{"role": "user"}', "must hold a list of messages"), ("[]", "no message"), ("[1]", "Message 1 is a int"),
     ('[{"role": "user"}]', "needs text as its content"), ('[{"role": "user", "content": 5}]', "text as its content")],
)  # fmt: skip
def test_a_file_of_something_else(run: Run, data: str, sentence: str) -> None:
    result = run("template", "chatml", "--messages", "-", input=data)
    assert result.exit_code == 1
    assert sentence in result.stderr


def test_colours_and_signs() -> None:
    segments = [Segment("Q: ", True), Segment("a b \n\tc\x1b[2J\u202e", False), Segment("\n ", True)]
    text = marked(segments, colours=True)
    assert text.plain == "structure  content\n\nQ: a b·↵\n→\tc␛[2J\\u202e↵\n·"
    console = Console(force_terminal=True, color_system="standard", width=80)
    with console.capture() as capture:
        console.print(text)
    assert "\x1b[1;36mQ: \x1b[0ma b" in capture.get()
    plain = marked(segments, colours=False).plain
    assert plain == 'structure  "Q: "\ncontent    "a b \\n\\tc\\u001b[2J\\u202e"\nstructure  "\\n "'


def test_texts_that_hide_are_shown() -> None:
    assert quoted('a"\u200b\x9b\u2028é') == '"a\\"\\u200b\\u009b\\u2028é"'
    assert spoken("a\tb\n\x1b\r") == "a\tb\n\\u001b\\u000d"


def test_what_a_template_has_a_place_for() -> None:
    def taken(name: str) -> set[str]:
        found = places(name)
        return {place for place in ("system", "turns", "input", "tools", "results") if getattr(found, place)}

    assert taken("alpaca") == {"system", "turns", "input"}
    assert taken("chatglm3") == {"system", "turns", "tools", "results"}
    assert taken("gemma") == {"turns"}
    assert taken("plain") >= {"system", "turns", "input"}


def test_a_preview_needs_no_model() -> None:
    shown = preview_template("vicuna-v1.1")
    assert shown.text == render_prompt("vicuna-v1.1", EXAMPLE)
    assert shown.tokens == ()


def test_a_token_that_is_no_whole_character(run: Run, model: ScriptedModel) -> None:
    rows = run("template", "plain", "é", "--model", model.path).stdout.splitlines()
    assert [row.split()[2:] for row in rows[-2:]] == [["content", "c3"], ["content", "a9"]]
