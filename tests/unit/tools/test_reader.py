"""Calls are told from text bit by bit, wherever the bits are cut."""

from __future__ import annotations

import json
import random

import pytest

from local_llms.catalog import find_template
from local_llms.catalog.schema import ToolFormat
from local_llms.tools import CallArguments, CallStart, ReplyReader, TextPiece, format_of, read_reply
from local_llms.tools.python_arguments import as_json

CALLS = {
    "plain": 'I look. \n<tool_call>\n{"name": "add", "arguments": {"a": [1, {"b": "}\\"{"}]}}\n</tool_call>\n'
    '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
    "glm4": 'add\n{"a": [1, {"b": "}\\"{"}]}',
    "chatglm3": 'add\n```python\ntool_call(a=[1, {"b": "}\\"{"}], c=True)\n```',
    "llama-3.1": '{"name": "add", "parameters": {"a": [1, {"b": "}\\"{"}]}}',
}


def parts(text: str, seed: int) -> list[str]:
    chance = random.Random(seed)
    cuts = sorted(chance.sample(range(1, len(text)), min(chance.randint(0, 12), len(text) - 1)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@pytest.mark.parametrize("template", CALLS)
@pytest.mark.parametrize("seed", range(25))
def test_pieces_assemble(template, seed):
    form = format_of(find_template(template)[1])
    reader = ReplyReader(form, ["add", "now"])
    pieces = [piece for part in parts(CALLS[template], seed) for piece in reader.push(part)] + reader.finish()
    said = "".join(piece.text for piece in pieces if isinstance(piece, TextPiece))
    starts = [piece for piece in pieces if isinstance(piece, CallStart)]
    texts = ["".join(p.text for p in pieces if isinstance(p, CallArguments) and p.index == s.index) for s in starts]
    assert said == ("I look." if template == "plain" else "")
    assert [start.name for start in starts] == (["add", "now"] if template == "plain" else ["add"])
    assert json.loads(texts[0])["a"] == [1, {"b": '}"{'}]
    assert [start.index for start in starts] == list(range(len(starts)))


@pytest.mark.parametrize("text", ["Hello", "<tool", "a < b and <tool_cal >", "  spaces  in  it", "new\n\nline"])
def test_text_is_text(text):
    form = format_of(find_template("plain")[1])
    for seed in range(10):
        reader = ReplyReader(form, ["add"])
        pieces = [piece for part in parts(text, seed) for piece in reader.push(part)] + reader.finish()
        assert "".join(piece.text for piece in pieces).strip() == text.strip()


def test_what_is_no_call_is_shown_at_once():
    """A stream is not held up by what cannot become one."""
    reader = ReplyReader(format_of(find_template("plain")[1]), ["add"])
    assert reader.push("Hello") == [TextPiece("Hello")]
    assert reader.push(" wor") == [TextPiece(" wor")]
    assert reader.push("ld <") == [TextPiece("ld")]
    assert reader.push("b>") == [TextPiece(" <b>")]


@pytest.mark.parametrize("template", ["plain", "llama-3.1"])
def test_what_is_blank_behind_a_call_is_nothing(template):
    form = format_of(find_template(template)[1])
    said, calls = read_reply(ReplyReader(form, ["add", "now"]), CALLS[template] + "\n \n")
    assert said == ("I look." if template == "plain" else "")
    assert calls


@pytest.mark.parametrize("seed", range(10))
def test_calls_with_something_between_them(seed):
    form = ToolFormat(
        call='{"name": "$name", "parameters": $arguments}', marker='{"name": "', anywhere=False, between="; "
    )
    text = '{"name": "add", "parameters": {"a": ";"}}; {"name": "now", "parameters": {}}'
    reader = ReplyReader(form, ["add", "now"])
    pieces = [piece for part in parts(text, seed) for piece in reader.push(part)] + reader.finish()
    assert [piece.name for piece in pieces if isinstance(piece, CallStart)] == ["add", "now"]
    assert not [piece for piece in pieces if isinstance(piece, TextPiece)]


@pytest.mark.parametrize("template", CALLS)
def test_a_call_that_was_cut_is_none(template):
    """Wherever it was: with a part of its arguments it is not what the model wanted to call."""
    form = format_of(find_template(template)[1])
    call = form.call.replace("$name", "add").replace(
        "$arguments", 'a="xyz"' if form.arguments == "python" else '{"a": 1}'
    )
    for length in range(len(call) - len(form.call.partition("$arguments")[2])):
        calls = read_reply(ReplyReader(form, ["add"]), call[:length])[1]
        assert calls == []
    assert [one.name for one in read_reply(ReplyReader(form, ["add"]), call)[1]] == ["add"]


def test_without_tools_all_is_text():
    text = CALLS["plain"]
    assert read_reply(ReplyReader(format_of(find_template("plain")[1]), []), text) == (text, [])


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("", {}),
        ("a=1", {"a": 1}),
        ('a="x, b=2", c=None', {"a": "x, b=2", "c": None}),
        ('a=True, b=[1, 2], c={"d": false}', {"a": True, "b": [1, 2], "c": {"d": False}}),
        ("a=1.5e3", {"a": 1500.0}),
        ("nonsense", {}),
        ("a=foo()", {}),
    ],
)
def test_keyword_arguments(written, values):
    assert json.loads(as_json(written)) == values
