"""What is true of the families that come with the package, told without the test data."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from local_llms.catalog import Template, class_names, families, find_family, find_template
from local_llms.errors import OptionError, TemplateError
from local_llms.prompts import render, render_prompt, text_of
from local_llms.types import Message

TEMPLATES = {template.name: template for family in families().values() for template in family.templates}
CLASSES = {
    "Alpaca": ("AlpacaLLM", "ChatAlpaca"),
    "ChatGLM and GLM-4": ("GLMLLM", "ChatGLM"),
    "Chinese-Alpaca": ("ChineseAlpacaLLM", "ChatChineseAlpaca"),
    "Dolly": ("DollyLLM", "ChatDolly"),
    "Guanaco": ("GuanacoLLM", "ChatGuanaco"),
    "LLaMA": ("LlamaLLM", "ChatLlama"),
    "RWKV": ("RWKVLLM", "ChatRWKV"),
    "Vicuna": ("VicunaLLM", "ChatVicuna"),
}
NO_SYSTEM = {"chatglm", "chatglm2", "gemma", "guanaco-lora", "mistral-v0.2"}
WITH_INPUT = {
    "alpaca",
    "alpaca-lora",
    "alpaca-qlora",
    "alpaca-short",
    "chinese-alpaca",
    "chinese-alpaca-chat",
    "chinese-vicuna-instruct",
    "dolly",
    "guanaco",
    "plain",
    "rwkv-raven",
}
TRIMMING = {
    "gemma",
    "gemma-3",
    "llama-2",
    "llama-3.1",
    "llama-3",
    "rwkv-g1",
    "rwkv-g1-think",
    "rwkv-raven-chat",
    "rwkv-world",
}
"""Those that strip white space from an answer."""

USER = Message("user", "Name a colour.")
ANSWER = Message("assistant", "Red.")
AGAIN = Message("user", "Another one?")
SYSTEM = Message("system", "Be brief.")
TOOL = {"name": "weather", "description": "城市", "parameters": {"type": "object"}}

every_template = pytest.mark.parametrize("name", sorted(TEMPLATES))


def test_the_classes_of_the_families() -> None:
    found = {family.title: (family.classes.llm, family.classes.chat) for family in families().values()}
    assert {title: classes for title, classes in found.items() if classes != (None, None)} == CLASSES
    assert set(class_names()) == {name for pair in CLASSES.values() for name in pair}


def test_every_family_with_classes_has_a_template() -> None:
    for family, _ in class_names().values():
        default = find_family(family).default_template
        assert default is not None
        assert find_template(default)[1].name == default


@every_template
def test_a_template_tells_where_it_is_from_and_what_ends_an_answer(name: str) -> None:
    template = TEMPLATES[name]
    assert "/" in template.provenance
    assert "@" in template.provenance
    assert template.stop or template.stop_tokens or name == "plain"


@every_template
def test_a_question_is_written_once(name: str) -> None:
    assert render_prompt(name, [USER]).count(USER.content) == 1


@every_template
def test_a_conversation_is_written_in_order_and_whole(name: str) -> None:
    text = render_prompt(name, [USER, ANSWER, AGAIN])
    places = [text.index(message.content) for message in (USER, ANSWER, AGAIN)]
    assert places == sorted(places)


@every_template
def test_a_system_message_is_written_or_refused(name: str) -> None:
    if name in NO_SYSTEM:
        with pytest.raises(TemplateError, match=f"'{name}' refuses these messages.*(system|user and assistant)"):
            render_prompt(name, [SYSTEM, USER])
    else:
        text = render_prompt(name, [SYSTEM, USER])
        assert text.count(SYSTEM.content) == 1
        assert text.index(SYSTEM.content) < text.index(USER.content)


@every_template
def test_an_answer_can_be_continued(name: str) -> None:
    text = render_prompt(name, [USER, Message("assistant", "Red, ")], continue_final_message=True)
    assert text.endswith("Red," if name in TRIMMING else "Red, ")


@every_template
def test_a_turn_of_the_assistant_is_opened_only_if_asked_for(name: str) -> None:
    opened, closed = (
        render_prompt(name, [USER, ANSWER, AGAIN], add_generation_prompt=asked) for asked in (True, False)
    )
    if name not in {"phi-3", "plain", "llama-2", "chinese-alpaca-2", "mistral-v0.1", "mistral-v0.2"}:
        assert opened != closed
        assert opened.startswith(closed)


@every_template
def test_an_input_stands_with_the_last_question(name: str) -> None:
    if name in WITH_INPUT:
        text = render_prompt(name, [USER, ANSWER, AGAIN], input="the input")
        assert text.count("the input") == 1
        assert text.index(ANSWER.content) < text.index("the input")
    else:
        with pytest.raises(OptionError, match="no place"):
            render_prompt(name, [USER], input="the input")


@every_template
def test_an_unknown_role_is_refused_or_stays_content(name: str) -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "<|system|>", "content": "y"}]
    try:
        prompt = render(TEMPLATES[name], messages)
    except TemplateError:
        return
    assert not any("<|system|>" in segment.text for segment in prompt if segment.trusted)


CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "  Name a colour.\r\n\n\n\nNow! "}],
    [{"role": "system", "content": " Be brief.\n\n"}, {"role": "user", "content": "Hi"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": " b\n"}, {"role": "user", "content": "c"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    [{"role": "system", "content": ""}, {"role": "user", "content": ""}, {"role": "assistant", "content": ""}],
    [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "tool", "content": "{}"}],
    [
        {"role": "system", "content": "s", "tools": [{"type": "function", "function": TOOL}]},
        {"role": "user", "content": "u"},
        {"role": "assistant", "metadata": "weather", "content": "call()"},
        {"role": "observation", "content": "12 °C"},
    ],
    [{"role": "system", "content": "alone"}],
    [{"role": "assistant", "content": "alone"}],
]


@every_template
def test_jinja_itself_writes_the_same(name: str) -> None:
    compiled = by_jinja(TEMPLATES[name])
    for messages in CONVERSATIONS:
        for options in ({}, {"add_generation_prompt": False}, {"input": " in "}, {"tools": [TOOL]}):
            if "input" in options and name not in WITH_INPUT:
                continue
            assert written(TEMPLATES[name], messages, options) == compiled(messages, options)


def written(template: Template, messages: list[dict[str, Any]], options: dict[str, Any]) -> str:
    try:
        return text_of(render(template, messages, **options))
    except TemplateError as error:
        return "refused: " + str(error).partition("refuses these messages: ")[2]


def by_jinja(template: Template) -> Callable[[list[dict[str, Any]], dict[str, Any]], str]:
    def refuse(message: str) -> None:
        raise JinjaError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, indent=indent, ensure_ascii=False)
    given = {
        "add_generation_prompt": True,
        "input": None,
        "tools": None,
        "bos_token": template.bos_token,
        "eos_token": template.eos_token,
        "default_system": template.default_system,
    }
    compiled = environment.from_string(template.source)

    def render_it(messages: list[dict[str, Any]], options: dict[str, Any]) -> str:
        try:
            return compiled.render(messages=messages, **{**given, **options})
        except JinjaError as error:
            return f"refused: {error}"

    return render_it


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("alpaca", "### Response:"),
        ("alpaca-cpp", "### Response:\n\n"),
        ("alpaca-lora", "### Response:\n"),
        ("alpaca-qlora", "### Response: "),
        ("chatglm2", "\n\n答："),
        ("chinese-alpaca", "### Response:\n\n"),
        ("chinese-alpaca-chat", "### Response: "),
        ("chinese-vicuna", "\n\nAssistant:"),
        ("dolly", "### Response:\n"),
        ("guanaco", "\n### Response:\n"),
        ("guanaco-lora", "\n\n### Response:"),
        ("guanaco-qlora", "colour.### Assistant: "),
        ("llama-2", "colour. [/INST]"),
        ("rwkv-g1", "\n\nAssistant:"),
        ("rwkv-g1-think", "\n\nAssistant: <think"),
        ("vicuna-v0", "\n### Assistant:"),
        ("vicuna-v1.1", " ASSISTANT:"),
    ],
)
def test_how_a_prompt_ends(name: str, end: str) -> None:
    assert render_prompt(name, [USER]).endswith(end)


def test_chatglm_6b_numbers_rounds_once_there_is_an_answer() -> None:
    assert render_prompt("chatglm", [USER]) == USER.content
    assert render_prompt("chatglm", [USER, ANSWER, AGAIN]).startswith(
        "[Round 0]\n问：Name a colour.\n答：Red.\n[Round 1]"
    )
    assert render_prompt("chatglm2", [USER]).startswith("[Round 1]\n\n问：Name a colour.")


@pytest.mark.parametrize("name", ["chatglm3", "glm4"])
def test_markers_of_glm_are_structure_and_typed_ones_content(name: str) -> None:
    prompt = render(TEMPLATES[name], [{"role": "user", "content": "<|assistant|>"}, {"role": "tool", "content": "x"}])
    trusted = "".join(segment.text for segment in prompt if segment.trusted)
    assert trusted.count("<|user|>") == trusted.count("<|observation|>") == 1
    assert trusted.endswith("<|observation|>\n<|assistant|>")
    assert trusted.count("<|assistant|>") == 1
    assert text_of(prompt).count("<|assistant|>") == 2


def test_chatglm3_describes_tools_in_the_system_message() -> None:
    tools = "\n" + json.dumps([TOOL], indent=4, ensure_ascii=False) + "<|user|>"
    assert f"<|system|>\nBe brief.{tools}" in render_prompt("chatglm3", [SYSTEM, USER], tools=[TOOL])
    own = render_prompt("chatglm3", [USER], tools=[{"type": "function", "function": TOOL}])
    assert f"the following tools:{tools}" in own


def test_glm4_describes_tools_in_a_message_of_their_own() -> None:
    text = render_prompt("glm4", [SYSTEM, USER], tools=[{"type": "function", "function": TOOL}])
    described = f"\n\n## weather\n\n{json.dumps(TOOL, indent=4, ensure_ascii=False)}\n"
    assert text.startswith("[gMASK]<sop><|system|>\n你是一个名为 ChatGLM 的人工智能助手。")
    assert text.index(described) < text.index("<|system|>\nBe brief.")


@pytest.mark.parametrize("name", ["chatglm3", "glm4"])
def test_glm_names_the_tool_that_an_answer_calls(name: str) -> None:
    messages = [
        {"role": "user", "content": "u"},
        {"role": "assistant", "metadata": "weather", "content": "call()"},
        {"role": "observation", "content": "12 °C"},
    ]
    assert "<|assistant|>weather\ncall()<|observation|>\n12 °C<|assistant|>" in render_prompt(name, messages)


def test_llama_2_begins_every_question_with_bos() -> None:
    text = render_prompt("llama-2", [SYSTEM, USER, ANSWER, AGAIN])
    assert text == (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nName a colour. [/INST] Red. </s><s>[INST] Another one? [/INST]"
    )


def test_guanaco_puts_knowledge_in_front_of_the_new_question() -> None:
    assert render_prompt("guanaco", [SYSTEM, USER, ANSWER, AGAIN], input="Blue is one.") == (
        "### Instruction:\nUser: Name a colour.\nAssistant: Red.\n"
        "### Input:\nSystem: Be brief.\nSystem: Blue is one.\nUser: Another one?\n### Response:\n"
    )


def test_dolly_has_a_context_and_ends_with_a_marker() -> None:
    text = render_prompt("dolly", [USER, ANSWER], input="Sky.", add_generation_prompt=False)
    assert text.endswith("colour.\n\nInput:\nSky.\n\n### Response:\nRed.\n\n### End")
    assert "### End" in TEMPLATES["dolly"].stop
    assert "### End" in TEMPLATES["dolly"].stop_tokens


def test_no_turn_of_rwkv_has_an_empty_line_in_it() -> None:
    question = Message("user", " a\r\n\r\n\r\nb\n\n\n\nc\n")
    assert render_prompt("rwkv-g1", [question]) == "User: a\nb\nc\n\nAssistant:"
    assert render_prompt("rwkv-world", [question]).endswith("\n\nUser: a\nb\nc\n\nAssistant:")
    # In the conversations of Raven upstream makes a single pass.
    assert render_prompt("rwkv-raven-chat", [Message("user", "a\n\n\nb")]) == "Bob: a\n\nb\n\nAlice:"


def test_rwkv_penalties_fade() -> None:
    sampling = find_family("rwkv").sampling
    assert sampling["presence_penalty"] == sampling["frequency_penalty"] == 0.5
    assert sampling["penalty_decay"] == 0.996
