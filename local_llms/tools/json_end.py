"""Where a JSON document that comes bit by bit ends."""

from __future__ import annotations


class JsonEnd:
    """Follows an object or a list; nothing else ends by itself."""

    def __init__(self) -> None:
        self.ended = False
        """Whether the last character of the document has come."""
        self._depth = 0
        self._in_text = False
        self._escaped = False

    def push(self, text: str) -> int:
        """How many characters of a further part belong to the document."""
        for place, one in enumerate(text):
            if self._in_text:
                if self._escaped:
                    self._escaped = False
                elif one == "\\":
                    self._escaped = True
                elif one == '"':
                    self._in_text = False
            elif one == '"':
                self._in_text = True
            elif one in "{[":
                self._depth += 1
            elif one in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.ended = True
                    return place + 1
        return len(text)
