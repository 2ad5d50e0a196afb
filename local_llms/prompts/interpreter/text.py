"""Text that knows where each of its characters comes from.

What a template's author wrote is *structure* and may become special tokens. Everything else - what users and models
wrote, numbers, the result of an operation that is not listed here - may not. So text is content unless it is known to
be structure: a plain ``str`` is content, a ``Text`` carries the spans that are not. An operation that forgets about
spans gives a plain ``str``, which errs on the safe side.

The functions here do what the ``str`` methods of the same names do, and carry the spans along.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

STRUCTURE = 1
"""Written by the template's author."""
FINAL = 2
"""Content of the message that the model is to continue; content like any other, but its place must be found again."""

_FIELD = re.compile(r"\{\{|\}\}|\{(\w*)\}|[{}]")

Span = tuple[int, int, int]
"""Start, end (exclusive) and origin (STRUCTURE or FINAL) of a part of a text."""


class Text(str):
    """A string with marked spans: in order, not empty, not overlapping, touching ones of equal origin merged."""

    __slots__ = ("spans",)
    spans: tuple[Span, ...]

    def __new__(cls, text: str, spans: tuple[Span, ...]) -> Text:
        """``text`` with ``spans``, which must keep the order described above."""
        self = super().__new__(cls, text)
        self.spans = spans
        return self


def structure(text: str) -> str:
    """``text`` as the template's author wrote it."""
    return Text(text, ((0, len(text), STRUCTURE),)) if text else ""


def final(text: str) -> str:
    """``text`` as content that is to be found again in the result."""
    return Text(text, ((0, len(text), FINAL),)) if text else ""


def spans(text: str) -> tuple[Span, ...]:
    """The marked spans of any string."""
    return text.spans if isinstance(text, Text) else ()


def cost(text: str) -> int:
    """How much memory a string takes, in characters."""
    return len(text) + 32 + (32 * len(text.spans) if isinstance(text, Text) else 0)


def concat(parts: Iterable[str]) -> str:
    """The parts one after the other."""
    pieces = [part for part in parts if part]
    if len(pieces) == 1:
        return pieces[0]
    merged: list[Span] = []
    offset = 0
    for piece in pieces:
        for start, stop, origin in spans(piece):
            if merged and merged[-1][1] == start + offset and merged[-1][2] == origin:
                merged[-1] = (merged[-1][0], stop + offset, origin)
            else:
                merged.append((start + offset, stop + offset, origin))
        offset += len(piece)
    return _marked("".join(pieces), merged)


def cut(text: str, start: int, stop: int) -> str:
    """``text[start:stop]`` for positions within the text."""
    if start >= stop:
        return ""
    if start == 0 and stop == len(text):
        return text
    kept = [
        (max(first, start) - start, min(last, stop) - start, origin)
        for first, last, origin in spans(text)
        if first < stop and last > start
    ]
    return _marked(text[start:stop], kept)


def strip(text: str, characters: str | None = None) -> str:
    """Without the characters (default: white space) at both ends."""
    return lstrip(rstrip(text, characters), characters)


def lstrip(text: str, characters: str | None = None) -> str:
    """Without the characters (default: white space) at the start."""
    return cut(text, len(text) - len(text.lstrip(characters)), len(text))


def rstrip(text: str, characters: str | None = None) -> str:
    """Without the characters (default: white space) at the end."""
    return cut(text, 0, len(text.rstrip(characters)))


def removeprefix(text: str, prefix: str) -> str:
    """Without ``prefix`` where the text starts with it."""
    return cut(text, len(text) - len(text.removeprefix(prefix)), len(text))


def removesuffix(text: str, suffix: str) -> str:
    """Without ``suffix`` where the text ends with it."""
    return cut(text, 0, len(text.removesuffix(suffix)))


def split(text: str, separator: str | None = None, limit: int = -1) -> list[str]:
    """The parts between separators (None: runs of white space), from the left."""
    return _located(text, text.split(separator, limit), separator)


def rsplit(text: str, separator: str | None = None, limit: int = -1) -> list[str]:
    """The parts between separators (None: runs of white space), from the right."""
    return _located(text, text.rsplit(separator, limit), separator)


def splitlines(text: str, keepends: bool = False) -> list[str]:
    """The lines, with their ends if asked for."""
    if not spans(text):
        return text.splitlines(keepends)
    lines = []
    start = 0
    for bare, whole in zip(text.splitlines(), text.splitlines(keepends=True), strict=True):
        lines.append(cut(text, start, start + len(whole if keepends else bare)))
        start += len(whole)
    return lines


def partition(text: str, separator: str) -> tuple[str, str, str]:
    """What stands before the first separator, the separator, what stands behind it."""
    return _around(text, text.find(separator), separator) or (text, "", "")


def rpartition(text: str, separator: str) -> tuple[str, str, str]:
    """What stands before the last separator, the separator, what stands behind it."""
    return _around(text, text.rfind(separator), separator) or ("", "", text)


def join(separator: str, parts: Sequence[str]) -> str:
    """The parts with the separator between them."""
    pieces: list[str] = []
    for part in parts:
        pieces += (separator, part)
    return concat(pieces[1:])


def replace(text: str, old: str, new: str, count: int = -1) -> str:
    """The first ``count`` occurrences (-1: all) of ``old`` replaced.

    The replacement is structure only where it replaces structure: otherwise whoever writes ``old`` into a message
    would put structure there.
    """
    if not old or not spans(text):
        return text.replace(old, new, count)
    pieces: list[str] = []
    done = 0
    while count != 0 and (found := text.find(old, done)) >= 0:
        pieces += (cut(text, done, found), _in_place_of(cut(text, found, found + len(old)), new))
        done = found + len(old)
        count -= 1
    return concat([*pieces, cut(text, done, len(text))])


def fill(text: str, value_of: Callable[[str], str]) -> str:
    """``text.format``, for fields that are empty, a number or a name; ``value_of`` gives the text for a field.

    As in ``replace``, a value is structure only where its field is. Raises ValueError for any other field.
    """
    parts: list[str] = []
    done = 0
    for field in _FIELD.finditer(text):
        start, stop = field.span()
        parts.append(cut(text, done, start))
        if field[0] in ("{{", "}}"):
            parts.append(cut(text, start, start + 1))
        elif field[1] is not None:
            parts.append(_in_place_of(cut(text, start, stop), value_of(field[1])))
        else:
            raise ValueError("only fields such as {}, {0} and {name} can be filled in")
        done = stop
    return concat([*parts, cut(text, done, len(text))])


def pieces(text: str) -> Iterable[tuple[str, bool]]:
    """The text in parts that are structure (True) or content (False), alternating, none empty."""
    done = 0
    for start, stop, origin in spans(text):
        if origin == STRUCTURE:
            if start > done:
                yield text[done:start], False
            yield text[start:stop], True
            done = stop
    if done < len(text):
        yield text[done:], False


def end_of_final(text: str) -> int | None:
    """Where the last part of the message that is to be continued ends; None where it does not appear."""
    return next((stop for _, stop, origin in reversed(spans(text)) if origin == FINAL), None)


def _marked(text: str, found: list[Span]) -> str:
    return Text(text, tuple(found)) if found else text


def _located(text: str, parts: list[str], separator: str | None) -> list[str]:
    """The parts of a split with their spans; between white space, a part is what is found next."""
    if not spans(text):
        return parts
    located = []
    start = 0
    for part in parts:
        start = text.index(part, start) if separator is None else start
        located.append(cut(text, start, start + len(part)))
        start += len(part) + len(separator or "")
    return located


def _around(text: str, at: int, separator: str) -> tuple[str, str, str] | None:
    if at < 0:
        return None
    end = at + len(separator)
    return cut(text, 0, at), cut(text, at, end), cut(text, end, len(text))


def _in_place_of(old: str, new: str) -> str:
    """``new`` with the origin of all of ``old``; as it is where it takes the place of structure."""
    origins = spans(old)
    if len(origins) != 1 or origins[0][:2] != (0, len(old)):
        return str(new)
    if origins[0][2] == STRUCTURE:
        return new
    return final(new)
