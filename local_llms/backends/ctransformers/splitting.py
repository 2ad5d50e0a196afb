"""Splits a text into the words that byte-level BPE merges inside of, as GPT-2's pattern does.

The pattern (openai/gpt-2, src/encoder.py) speaks of Unicode's letters and numbers, which Python's ``re`` cannot name.
So each character is written as the letter of its class first, and the pattern runs over those.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_WORD = re.compile(r" ?L+| ?N+| ?O+|[ S]+(?![LNO])|[ S]+")


def words(text: str) -> Iterator[str]:
    """The words of a text in their order; joined they are the text."""
    classes = "".join(map(_class, text))
    at = 0
    while at < len(text):
        end = at
        if text[at] == "'":
            end += next((len(ending) for ending in _CONTRACTIONS if text.startswith(ending, at)), 0)
        if end == at:
            match = _WORD.match(classes, at)
            end = match.end() if match else at + 1
        yield text[at:end]
        at = end


def _class(character: str) -> str:
    """L for a letter, N for a number, S for white space other than a blank, which stands for itself, O for others."""
    if character == " ":
        return " "
    if character.isspace() and character not in "\x1c\x1d\x1e\x1f":
        # Python counts four separators of ASCII as white space; Unicode's property does not.
        return "S"
    kind = unicodedata.category(character)[0]
    return kind if kind in "LN" else "O"
