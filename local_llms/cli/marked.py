"""A prompt as it can be seen: structure apart from content, and the characters that otherwise hide."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

    from local_llms.templates import Segment

STYLES = {"marker": "bold magenta", "structure": "bold cyan", "content": "", "both": "yellow", "unknown": "dim"}
"""Bold stays where a terminal has no colours."""

_ESCAPED = re.compile("[\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""What JSON leaves as it is and nobody sees: control characters, and those that turn the direction of a text."""
_SIGNS = {number: chr(0x2400 + number) for number in range(0x20)} | {0x7F: "\u2421", 0x09: "→\t", 0x0A: "↵\n"}
_LAST_SPACES = re.compile(r" +(?=\n|\Z)")


def quoted(text: str) -> str:
    """The text as a JSON string in which nothing hides."""
    return _ESCAPED.sub(_code, json.dumps(text, ensure_ascii=False))


def spoken(text: str) -> str:
    """The text with control characters other than tab and line break as codes, so that a terminal stays as it is."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f]", _code, text)


def marked(segments: Iterable[Segment], *, colours: bool) -> Text:
    """All parts of a prompt: in colours as one text, or else a line for each, which a program can read too.

    In colours ↵ shows a line break, · a space before one or at the end, → a tab.
    """
    from rich.text import Text

    runs = groupby(segments, key=lambda segment: "structure" if segment.trusted else "content")
    shown = [(origin, "".join(segment.text for segment in run)) for origin, run in runs]
    if not colours:
        return Text("\n".join(f"{origin:<9}  {quoted(said)}" for origin, said in shown))
    text = Text.assemble(("structure", STYLES["structure"]), "  content\n\n")
    whole = "".join(said for _, said in shown)
    ends = {place for match in _LAST_SPACES.finditer(whole) for place in range(*match.span())}
    place = 0
    for origin, said in shown:
        signs = ["·" if place + at in ends else _sign(character) for at, character in enumerate(said)]
        for hides, pairs in groupby(zip(signs, said, strict=True), key=lambda pair: pair[0] != pair[1]):
            text.append("".join(sign for sign, _ in pairs), "dim" if hides else STYLES[origin])
        place += len(said)
    return text


def _sign(character: str) -> str:
    return _SIGNS.get(ord(character)) or _ESCAPED.sub(_code, character)


def _code(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
