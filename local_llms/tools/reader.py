"""An answer's text, as it comes, told apart into what is said and what is called."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from local_llms.catalog.schema import ToolFormat
from local_llms.tools.json_end import JsonEnd
from local_llms.tools.python_arguments import as_json
from local_llms.types import ToolCall


@dataclass(frozen=True, slots=True)
class TextPiece:
    """What the answer says next."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call begins: the ``index``-th of the answer, from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The next part of the JSON text of a call's arguments."""

    index: int
    text: str


Piece = TextPiece | CallStart | CallArguments


class ReplyReader:
    """Reads an answer that was held to the grammar of the same format and tools. The pieces joined are the answer."""

    def __init__(self, form: ToolFormat, names: Sequence[str]) -> None:
        """``names``: of the tools that the answer may call; none for an answer that is text alone."""
        before, _, self._after = form.call.partition("$arguments")
        self._heads = {before.replace("$name", name): name for name in names}
        self._form = form
        self._held = ""
        self._calls = 0
        self._end: JsonEnd | None = None
        self._state = "outside" if names else "text"

    def push(self, text: str) -> list[Piece]:
        """What a further part of the answer's text adds; part of it may be held back."""
        self._held += text
        return list(self._read())

    def finish(self) -> list[Piece]:
        """What was held back, once nothing follows."""
        held, self._held = self._held, ""
        return [TextPiece(held)] if held and self._state in ("outside", "text") and held.strip() else []

    def _read(self) -> Iterator[Piece]:
        while self._held:
            step = getattr(self, f"_in_{self._state}")
            before = (self._held, self._state)
            yield from step()
            if (self._held, self._state) == before:
                return

    def _in_text(self) -> Iterator[Piece]:
        """Text to the end of the answer."""
        held, self._held = self._held, ""
        yield TextPiece(held)

    def _in_outside(self) -> Iterator[Piece]:
        """Where a call may begin."""
        found = [(place, head) for head in self._heads if (place := self._held.find(head)) >= 0]
        if not self._form.anywhere or self._calls:
            stripped = self._held.lstrip(" \n") if not self._form.text else self._held
            between = self._form.between.strip()
            stripped = stripped.removeprefix(between).lstrip(" \n") if self._calls and between else stripped
            if any(stripped.startswith(head) for head in self._heads):
                yield self._begin(next(head for head in self._heads if stripped.startswith(head)), stripped)
            elif not any(head.startswith(stripped) for head in self._heads):
                self._held = self._held.removeprefix(self._form.text)
                self._state = "text"
            return
        if found:
            place, head = min(found)
            said = self._held[:place].strip(" \n") if not self._held[:place].strip() else self._held[:place].rstrip()
            if said:
                yield TextPiece(said)
            yield self._begin(head, self._held[place:])
            return
        keep = self._beginning_of_a_head()
        said, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        if said:
            yield TextPiece(said)

    def _begin(self, head: str, text: str) -> CallStart:
        self._held = text[len(head) :]
        self._state = "arguments"
        self._end = JsonEnd()
        self._calls += 1
        return CallStart(self._calls - 1, f"call_{uuid.uuid4().hex[:24]}", self._heads[head])

    def _in_arguments(self) -> Iterator[Piece]:
        if self._form.arguments == "python":
            place = self._held.find(self._after)
            if place >= 0:
                yield CallArguments(self._calls - 1, as_json(self._held[:place]))
                self._held, self._state = self._held[place:], "after"
            return
        end = self._end or JsonEnd()
        length = end.push(self._held)
        part, self._held = self._held[:length], self._held[length:]
        if part:
            yield CallArguments(self._calls - 1, part)
        if end.ended:
            self._state = "after"

    def _in_after(self) -> Iterator[Piece]:
        if self._held.startswith(self._after):
            self._held, self._state = self._held[len(self._after) :], "outside"
        yield from ()

    def _beginning_of_a_head(self) -> int:
        """Length of the longest end of the held text with which a call begins, white space in front included."""
        longest = max(map(len, self._heads)) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(head.startswith(end) for head in self._heads):
                return len(self._held) - len(self._held[:-length].rstrip(" \n"))
        return len(self._held) - len(self._held.rstrip(" \n"))


def read_reply(reader: ReplyReader, text: str) -> tuple[str, list[ToolCall]]:
    """What a whole answer says, and what it calls, by a fresh reader. A call that was cut is left out."""
    said: list[str] = []
    calls: list[tuple[CallStart, list[str]]] = []
    for piece in [*reader.push(text), *reader.finish()]:
        if isinstance(piece, TextPiece):
            said.append(piece.text)
        elif isinstance(piece, CallStart):
            calls.append((piece, []))
        else:
            calls[piece.index][1].append(piece.text)
    whole = [(start, _arguments("".join(parts))) for start, parts in calls]
    return "".join(said), [ToolCall(start.id, start.name, given) for start, given in whole if given is not None]


def _arguments(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
