"""A prompt taken apart: whose text is what, and which token spells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from local_llms.catalog import Template, find_template
from local_llms.errors import OptionError
from local_llms.prompts import encode, preview, render
from local_llms.testing.scripted import ScriptedBackend
from local_llms.types import Message

TALK = [Message("user", "Hi</s>"), Message("assistant", "Yo"), Message("user", "é?")]


class Words:
    """Pieces of up to four bytes, with a space in front of every text, as SentencePiece puts one."""

    def __init__(self, specials: Mapping[str, int], *, adds_bos: bool = True, shout: bool = False) -> None:
        self.info = replace(ScriptedBackend().info, special_tokens=specials, bos_id=0, adds_bos=adds_bos)
        self._pieces: list[bytes] = []
        self._shout = shout

    def tokenize(self, text: str) -> list[int]:
        said = (" " + (text.upper() if self._shout else text)).encode()
        pieces = [said[at : at + 4] for at in range(0, len(said), 4)]
        first = 100 + len(self._pieces)
        self._pieces += pieces
        return list(range(first, first + len(pieces)))

    def token_bytes(self, token_id: int) -> bytes:
        return self._pieces[token_id - 100] if token_id >= 100 else b""


def test_the_parts_are_the_prompt() -> None:
    template = find_template("alpaca")[1]
    shown = preview(template, TALK, input="Text")
    assert shown.segments == render(template, TALK, input="Text")
    assert [each.text for each in shown.segments if not each.trusted] == ["Hi</s>", "Yo", "é?", "Text"]
    assert "".join(each.text for each in shown.segments) == shown.text
    assert (shown.template, shown.tokens) == (template, ())


def test_tokens_are_those_that_are_sent() -> None:
    template, backend = find_template("chatml")[1], ScriptedBackend()
    shown = preview(template, TALK, backend)
    assert [token.id for token in shown.tokens] == encode(render(template, TALK), backend)
    first = shown.tokens[0]
    assert (first.says, first.origin) == (b"<s>", "marker")


def test_every_token_knows_whose_text_it_is() -> None:
    shown = preview(find_template("chatml")[1], [Message("user", "Hi<|im_end|>é")], ScriptedBackend())
    said = {
        origin: b"|".join(token.says for token in shown.tokens if token.origin == origin)
        for origin in ("marker", "content", "structure")
    }
    assert said["marker"] == b"<s>|<|im_start|>|<|im_end|>|<|im_start|>"
    assert said["content"] == b"|".join([bytes([byte]) for byte in "Hi<|im_end|>é".encode()])
    assert said["structure"].replace(b"|", b"") == b"user\n\nassistant\n"


def test_a_space_in_front_and_tokens_of_both() -> None:
    template = Template(name="t", source="{{ '<s>Q: ' }}{{ messages[0].content }}{{ '</s>A' }}")
    shown = preview(template, [Message("user", "abcdef")], Words({"<s>": 0, "</s>": 1}))
    assert [(token.says, token.origin) for token in shown.tokens] == [
        (b"<s>", "marker"),
        (b" Q: ", "structure"),
        (b"abcd", "content"),
        (b"ef", "content"),
        (b"</s>", "marker"),
        (b" A", "structure"),
    ]
    shown = preview(template, [Message("user", "ab")], Words({"</s>": 1}, adds_bos=False))
    assert [token.origin for token in shown.tokens] == ["structure", "both", "content", "marker", "structure"]


def test_a_bos_written_twice_is_sent_once() -> None:
    template = Template(name="t", source="{{ '<s><s>' }}{{ messages[0].content }}")
    shown = preview(template, [Message("user", "abc")], Words({"<s>": 0}))
    assert [(token.says, token.origin) for token in shown.tokens] == [(b"<s>", "marker"), (b" abc", "content")]


def test_a_tokenizer_that_changes_texts_is_not_guessed_at() -> None:
    template = Template(name="t", source="{{ messages[0].content }}{{ '</s>' }}{{ messages[0].content | upper }}")
    shown = preview(template, [Message("user", "abc")], Words({"</s>": 1}, adds_bos=False, shout=True))
    assert [(token.says, token.origin) for token in shown.tokens] == [
        (b" ABC", "unknown"),
        (b"</s>", "marker"),
        (b" ABC", "content"),
    ]


def test_half_a_character_is_shown_as_it_is_sent() -> None:
    shown = preview(find_template("plain")[1], [Message("user", "a\ud83eb")], ScriptedBackend())
    assert shown.text == "a\ufffdb"
    assert {token.origin for token in shown.tokens[1:]} == {"content"}


def test_options_are_those_of_render() -> None:
    template = find_template("alpaca")[1]
    assert preview(template, TALK[:1], add_generation_prompt=False).text.endswith("Hi</s>")
    assert preview(template, TALK[:2], continue_final_message=True).text.endswith("Yo")
    with pytest.raises(OptionError, match="input"):
        preview(find_template("chatml")[1], TALK, input="Text")


def test_a_model_without_markers() -> None:
    shown = preview(find_template("plain")[1], [Message("user", "abc")], Words({}, adds_bos=False))
    assert [token.origin for token in shown.tokens] == ["content"]


def test_white_space_that_a_marker_swallows_is_passed() -> None:
    template = Template(name="t", source="{{ '<s>\\n\\n' }}{{ messages[0].content }}{{ ' </s>\\nA' }}")
    words = Words({"<s>": 0, "</s>": 1})
    words.info = replace(words.info, swallows_before=frozenset({1}), swallows_after=frozenset({0, 1}))
    shown = preview(template, [Message("user", "abc")], words)
    assert [(token.says, token.origin) for token in shown.tokens] == [
        (b"<s>", "marker"),
        (b" abc", "content"),
        (b"</s>", "marker"),
        (b" A", "structure"),
    ]
