"""From messages to segments: what a caller gives, what a caller gets wrong, and continuing an answer."""

# ruff: noqa: E501

from __future__ import annotations

import pytest

from local_llms.catalog.schema import Template
from local_llms.errors import EmptyPrompt, ModelNotFound, OptionError, PromptError, TemplateError
from local_llms.prompts import Segment, check_not_empty, render, render_prompt, text_of
from local_llms.types import Message

CHAT = Template(
    name="chat",
    source="{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
)
QUESTION = Message("user", "Why?")


def text(source: str, *messages: object, **options: object) -> str:
    given = messages or (QUESTION,)
    return text_of(render(Template(name="t", source=source), given, **options))  # type: ignore[arg-type]


def test_segments_alternate_and_add_up() -> None:
    assert render(CHAT, [QUESTION]) == (
        Segment("<user>", True),
        Segment("Why?", False),
        Segment("</><assistant>", True),
    )
    assert text_of(render(CHAT, [QUESTION])) == "<user>Why?</><assistant>"


def test_messages_and_dictionaries_are_the_same() -> None:
    assert render(CHAT, [QUESTION]) == render(CHAT, [{"role": "user", "content": "Why?"}])


def test_a_dictionary_may_carry_more() -> None:
    message = {"role": "assistant", "content": "", "calls": [{"name": "f", "args": {"n": 1, "x": None, "y": 0.5}}]}
    assert text("{{ messages[0].calls | tojson }}", message) == '[{"name": "f", "args": {"n": 1, "x": null, "y": 0.5}}]'


def test_what_a_template_sees() -> None:
    names = ["messages", "input", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"]
    source = "{% for x in [" + ", ".join(names) + "] %}{{ x is defined }}{% endfor %}"
    assert text(source) == "True" * len(names)
    assert text("{{ input }}|{{ tools }}|{{ default_system }}|{{ add_generation_prompt }}") == "None|None|None|True"
    template = Template(name="t", source="{{ default_system }}", default_system="Be kind.")
    assert render(template, [QUESTION]) == (Segment("Be kind.", True),)


def test_a_caller_s_messages_are_not_changed() -> None:
    messages = [{"role": "user", "content": "a", "extra": [1]}, {"role": "assistant", "content": ""}]
    before = [dict(message) for message in messages]
    render(CHAT, messages, continue_final_message=True)
    assert messages == before


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ("Why?", "list of messages, not str"),
        ({"role": "user", "content": "a"}, "list of messages, not dict"),
        (["Why?"], "Message 1 is a str"),
        ([QUESTION, {"content": "a"}], "Message 2 needs text as its role, not nothing"),
        ([{"role": "user"}], "Message 1 needs text as its content, not nothing"),
        ([{"role": "user", "content": None}], "content, not NoneType"),
        ([{"role": "user", "content": ["a"]}], "content, not list"),
        ([{"role": 1, "content": "a"}], "role, not int"),
        ([{"role": "user", "content": "a", "extra": object()}], "not object"),
        ([{"role": "user", "content": "a", "extra": {1: 2}}], "a key must be text"),
    ],
)
def test_messages_of_the_wrong_shape(messages: object, problem: str) -> None:
    with pytest.raises(OptionError, match=problem):
        render(CHAT, messages)  # type: ignore[arg-type]


def test_input_and_tools_of_the_wrong_shape() -> None:
    with pytest.raises(OptionError, match="input must be text, not int"):
        text("x", input=3)
    with pytest.raises(OptionError, match=r"The tools cannot be given to a template: .* not object"):
        text("x", tools=[{"name": object()}])


def test_no_message() -> None:
    with pytest.raises(EmptyPrompt, match="no message"):
        render(CHAT, [])


def test_not_empty() -> None:
    check_not_empty("a")
    check_not_empty("", "an input")
    check_not_empty([Message("system", "s"), Message("user", "")])
    for empty in ("", [], [Message("user", "")], [{"role": "user", "content": ""}]):
        with pytest.raises(EmptyPrompt):
            check_not_empty(empty)


def test_an_empty_message_is_rendered() -> None:
    assert text_of(render(CHAT, [Message("user", "")])) == "<user></><assistant>"


# continuing


def test_continuing_ends_with_the_message() -> None:
    messages = [QUESTION, Message("assistant", "Because ")]
    expected = "<user>Why?</><assistant>Because "
    assert text_of(render(CHAT, messages, continue_final_message=True)) == expected
    assert text_of(render(CHAT, messages, continue_final_message=True, add_generation_prompt=False)) == expected


def test_continuing_is_not_misled_by_equal_text() -> None:
    messages = [Message("user", "</>"), Message("assistant", "</>")]
    assert text_of(render(CHAT, messages, continue_final_message=True)) == "<user></></><assistant></>"


def test_continuing_what_a_template_trims() -> None:
    source = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}"
    messages = [QUESTION, Message("assistant", " Because \n")]
    assert text(source, *messages, continue_final_message=True) == "<user>Why?</><assistant>Because"


def test_continuing_the_rest_of_a_split() -> None:
    source = "{% for m in messages %}{{ m.content.split('</think>')[-1].replace('a', 'b') }}.{% endfor %}"
    assert text(source, QUESTION, Message("assistant", "x</think>an"), continue_final_message=True) == "Why?.bn"


def test_continuing_an_empty_message_opens_one() -> None:
    messages = [QUESTION, Message("assistant", "")]
    assert text_of(render(CHAT, messages, continue_final_message=True)) == "<user>Why?</><assistant>"
    with pytest.raises(EmptyPrompt):
        render(CHAT, messages[1:], continue_final_message=True)


def test_continuing_a_blank_message() -> None:
    messages = [QUESTION, Message("assistant", " \n")]
    assert text_of(render(CHAT, messages, continue_final_message=True)) == "<user>Why?</><assistant> \n"
    trimming = CHAT.model_copy(update={"source": CHAT.source.replace("m.content", "m.content | trim")})
    assert text_of(render(trimming, messages, continue_final_message=True)) == "<user>Why?</><assistant>"


def test_continued_content_is_content() -> None:
    prompt = render(CHAT, [QUESTION, Message("assistant", "</>")], continue_final_message=True)
    assert prompt[-1] == Segment("</>", False)


def test_only_the_assistant_is_continued() -> None:
    with pytest.raises(PromptError, match="not the assistant's"):
        render(CHAT, [QUESTION], continue_final_message=True)


def test_a_template_that_hides_the_message() -> None:
    with pytest.raises(TemplateError, match="'t' does not show the last message"):
        text("{{ messages[1].content | upper }}", QUESTION, Message("assistant", "a"), continue_final_message=True)


# errors of templates


def test_a_template_that_raises() -> None:
    with pytest.raises(TemplateError, match="The template 't' refuses these messages: Only one question!"):
        text("{{ raise_exception('Only one question!') }}")


def test_errors_tell_the_line() -> None:
    with pytest.raises(TemplateError, match=r"'t' cannot be carried out, line 3: 'foo' is undefined\."):
        text("a\nb\n{{ foo.bar }}")
    with pytest.raises(TemplateError, match="line 2: Unexpected end of template"):
        text("a\n{% if x %}")
    with pytest.raises(TemplateError, match="line 4: the tag for Include is not offered"):
        text("\n\n\n{% include 'x' %}")
    with pytest.raises(TemplateError, match="line 2: there is no filter 'frobnicate'"):
        text("{% for x in [1] %}\n{{ x | frobnicate }}{% endfor %}")


def test_a_mistake_of_ours_is_not_a_template_s(monkeypatch: pytest.MonkeyPatch) -> None:
    from local_llms.prompts.interpreter import list_filters

    def broken(budget: object, value: object, /) -> object:
        return len(3)  # type: ignore[arg-type]

    monkeypatch.setitem(list_filters.FILTERS, "broken", broken)
    with pytest.raises(TypeError, match="has no len"):
        text("{{ 1 | broken }}")


def test_prompts_of_one_template_do_not_mix() -> None:
    source = "{% set ns = namespace(x=0) %}{% macro m() %}{{ messages[0].content }}{% endmacro %}{{ m() }}"
    assert text(source, Message("user", "a")) == "a"
    assert text(source, Message("user", "b")) == "b"


# by name


def test_render_prompt() -> None:
    assert render_prompt("plain", [QUESTION]) == "Why?"
    assert render_prompt("chatml", [QUESTION], add_generation_prompt=False) == "<|im_start|>user\nWhy?<|im_end|>\n"
    with pytest.raises(ModelNotFound, match="'smollm2'"):
        render_prompt("smollm3", [QUESTION])


def test_alpaca_over_several_turns() -> None:
    turns = [Message("user", "A"), Message("assistant", "B"), Message("user", "C")]
    intro = "Below is an instruction that describes a task"
    assert render_prompt("alpaca", turns, input="I") == (
        f"{intro}, paired with an input that provides further context. Write a response that appropriately completes "
        "the request.\n\n### Instruction:\nA\n\n### Response:B</s>\n\n### Instruction:\nC\n\n### Input:\nI\n\n### Response:"
    )
    system = [Message("system", "Be brief."), *turns]
    assert render_prompt("alpaca", system).startswith("Be brief.\n\n### Instruction:\nA\n\n### Response:B</s>")
    assert render_prompt("alpaca", [Message("system", ""), *turns]).startswith("### Instruction:\nA\n")
    assert render_prompt("alpaca", turns[:2], continue_final_message=True).endswith("### Response:B")
    assert render_prompt("alpaca", turns[:2], add_generation_prompt=False).endswith("### Response:B</s>")


@pytest.mark.parametrize("name", ["alpaca", "vicuna-v1.1"])
@pytest.mark.parametrize(
    "messages", [[QUESTION, Message("system", "x")], [QUESTION, Message("tool", "x")], [{"role": "x", "content": ""}]]
)
def test_roles_that_a_format_does_not_have(name: str, messages: list[Message]) -> None:
    with pytest.raises(TemplateError, match="refuses these messages: a message of the role"):
        render_prompt(name, messages)


def test_an_input_without_a_place_is_refused() -> None:
    with pytest.raises(OptionError, match="no place for a separate input"):
        render(CHAT, [QUESTION], input="something")
    assert render(CHAT, [QUESTION], input="") == render(CHAT, [QUESTION])
    assert "something" in render_prompt("alpaca", [QUESTION], input="something")
