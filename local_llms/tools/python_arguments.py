"""Keyword arguments as Python writes them → JSON."""

from __future__ import annotations

import json

_WORDS = {"True": True, "False": False, "None": None}


def as_json(text: str) -> str:
    """``a=1, b="x", c=True`` → ``{"a": 1, "b": "x", "c": true}``.

    Every value is JSON, or one of Python's three words. What cannot be read so gives "{}".
    """
    decoder = json.JSONDecoder()
    values: dict[str, object] = {}
    place = 0
    while place < len(text):
        equals = text.find("=", place)
        if equals < 0:
            return "{}"
        name = text[place:equals].strip(" ,\n")
        word = next((word for word in _WORDS if text.startswith(word, equals + 1)), None)
        if word is not None:
            values[name], place = _WORDS[word], equals + 1 + len(word)
            continue
        try:
            values[name], place = decoder.raw_decode(text, equals + 1 + _blanks(text, equals + 1))
        except ValueError:
            return "{}"
    return json.dumps(values, ensure_ascii=False)


def _blanks(text: str, place: int) -> int:
    return len(text[place:]) - len(text[place:].lstrip())
