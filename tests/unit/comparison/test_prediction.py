"""Passages: nothing is counted twice or left out, and everything has the context that was promised."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_llms.comparison.prediction import Passages, predict
from local_llms.errors import OptionError
from local_llms.types import Score

TEXTS = st.text(alphabet="ab \né", min_size=1, max_size=400).filter(str.strip)


@given(TEXTS, st.integers(1, 120), st.integers(1, 120))
def test_every_character_is_counted_once(text: str, window: int, stride: int) -> None:
    if stride > window:
        with pytest.raises(OptionError, match="stride="):
            Passages(text, window, stride)
        return
    parts = list(Passages(text, window, stride))
    assert "".join(counted for _, counted in parts) == text
    assert all(counted for _, counted in parts)
    done = 0
    for context, counted in parts:
        assert text[:done].endswith(context)
        # A word is not cut: the beginning moves back to a space, by less than a long word.
        assert len(context + counted) <= window + 40
        if done > window:
            assert len(context) >= window - stride - 1
        done += len(counted)


def test_words_are_not_cut() -> None:
    parts = list(Passages("one two three four five six seven", 12, 6))
    assert parts[0] == ("", "one two")
    assert all(counted.startswith(" ") for _, counted in parts[1:])


def test_only_the_counted_part_counts() -> None:
    """A model that gives each character a probability of a half, and the first of a text none."""
    asked: list[str] = []

    def score(text: str) -> Score:
        asked.append(text)
        values = tuple(None if place == 0 else -math.log(2) for place in range(len(text)))
        return Score(tuple(map(ord, text)), values)

    text = "abcd efgh ijkl mnop qrst"
    found = predict(score, lambda part: [ord(letter) for letter in part], Passages(text, 10, 5))
    assert found.tokens == len(text) - 1
    assert found.perplexity == pytest.approx(2)
    assert found.bits_per_byte == pytest.approx((len(text) - 1) / len(text))
    assert max(map(len, asked)) <= 10


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(OptionError, match="empty"):
        Passages(" \n", 10, 5)
