"""What cannot fit is refused before it is tokenized, and nothing that can fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_llms.errors import ContextOverflow
from local_llms.prompts import Segment, check_length, encode
from local_llms.prompts.length import CHECKED_CHARACTERS, _cache, _Words
from local_llms.prompts.window import encode_within
from local_llms.types import Message
from tests.unit.prompts.conftest import PairTokenizer

WORDS = (b"hello", b" world", "日本".encode(), "é".encode(), "\U0001f9d1".encode()[:3])


class Greedy(PairTokenizer):
    """Takes the longest word at each place. Every byte is a token but those that it lacks."""

    def __init__(self, lacks: tuple[int, ...] = (), keeps_bytes: bool = True, room: int = 1 << 30) -> None:
        super().__init__({"<s>": 0})
        single = [bytes([byte]) for byte in range(256) if byte not in lacks]
        self.words = [b"", *single, *WORDS]
        self.info = replace(
            self.info, vocabulary_size=len(self.words), keeps_bytes=keeps_bytes, context_length=room, cache_tokens=room
        )

    def token_bytes(self, token_id: int) -> bytes:
        return self.words[token_id]

    def tokenize(self, text: str) -> list[int]:
        self.texts.append(text)
        data, ids = text.encode(), []
        while data:
            fitting = [number for number, word in enumerate(self.words) if word and data.startswith(word)]
            if fitting:
                ids.append(max(fitting, key=lambda number: len(self.words[number])))
            data = data[len(self.words[ids[-1]]) if fitting else 1 :]
        return ids


@given(st.lists(st.sampled_from(["hello", " world", "日本", "日", "é", "🦙", "\U0001f9d1", "x", "\n"]), max_size=40))
def test_no_text_has_fewer_tokens(parts: list[str]) -> None:
    tokenizer, text = Greedy(), "".join(parts)
    assert _Words.of(tokenizer).fewest_tokens(text) <= len(tokenizer.tokenize(text))


@pytest.mark.parametrize(
    ("text", "room", "refused"),
    [
        ("🦙" * 5000, 5000, True),
        ("🦙" * 5000, 5001, False),
        (" world" * 5000, 5000, True),
        (" world" * 5000, 5001, False),
        ("x" * CHECKED_CHARACTERS, 600, True),
        ("🦙" * (CHECKED_CHARACTERS - 1), 10, False),
    ],
)
def test_what_is_certain_is_refused(text: str, room: int, refused: bool) -> None:
    tokenizer = Greedy()
    prompt = (Segment(text[:100], True), Segment(text[100:], False))
    if refused:
        with pytest.raises(ContextOverflow, match="it was not tokenized") as caught:
            encode(prompt, tokenizer, room)
        assert caught.value.context_length == room
        assert caught.value.prompt_tokens >= room
    else:
        check_length([text], tokenizer, room)
    assert tokenizer.texts == []


def test_without_a_limit_nothing_is_refused() -> None:
    tokenizer = Greedy()
    assert len(encode((Segment("🦙" * 5000, False),), tokenizer)) == 20_000


def test_a_tokenizer_that_changes_texts_is_asked() -> None:
    """It may make one token of a thousand spaces, or leave out what it does not know."""
    for tokenizer in (Greedy(keeps_bytes=False), Greedy(lacks=(0xA6,))):
        check_length(["🦙" * 50_000], tokenizer, 10)


def test_few_vocabularies_are_remembered() -> None:
    for _ in range(20):
        check_length(["x" * 5000], Greedy(), 1 << 14)
    assert len(_cache) <= 8


def test_old_turns_that_are_far_too_long_go() -> None:
    tokenizer = Greedy()
    messages = [Message("user", "🦙" * 50_000), Message("assistant", "ok"), Message("user", "hello")]

    def ids_of(some: list[Message]) -> list[int]:
        return encode(tuple(Segment(message.content, False) for message in some), tokenizer, 100)

    ids, dropped = encode_within(messages, ids_of, 50)  # type: ignore[arg-type]
    assert (len(ids), len(dropped)) == (1, 2)
    assert tokenizer.texts == ["hello"]
    with pytest.raises(ContextOverflow):
        encode_within(messages[:1], ids_of, 50)  # type: ignore[arg-type]
