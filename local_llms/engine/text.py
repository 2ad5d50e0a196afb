"""Bytes of tokens → text: whole characters only, and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextAssembler:
    """Puts the text of one answer together, token by token.

    Text is held back while its last character is incomplete, and while its end may be the beginning of a stop string.
    """

    def __init__(self, stop: Sequence[str] = (), *, trims: bool = False) -> None:
        """``stop``: non-empty strings; the first one to be complete ends the answer.

        Of several that are complete at the same character, the longest counts. So the text does not depend on how it
        was cut into tokens. ``trims``: white space at the beginning is left out, and completes no stop string.
        """
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._trims = trims
        self.stop_match: str | None = None
        """The stop string that was found."""

    def push(self, data: bytes, *, heed_stops: bool = True) -> str:
        """Add the bytes of a token; returns the text that is certain now. After a stop string, always "".

        ``heed_stops``: whether a stop string counts that this token completes, or that is held back.
        """
        if self.stop_match is not None:
            return ""
        text = self._decoder.decode(data)
        if self._trims:
            text = text.lstrip()
            self._trims = not text
        if not self._stop:
            return text
        self._held += text
        if not heed_stops:
            released, self._held = self._held, ""
            return released
        match = self._first_stop()
        if match is not None:
            index, self.stop_match = match
            released, self._held = self._held[:index], ""
            return released
        keep = self._longest_beginning_of_a_stop()
        released = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return released

    def finish(self) -> str:
        """The text still held back, once no token follows. An incomplete character is left out."""
        if self.stop_match is not None:
            return ""
        held, self._held = self._held, ""
        self._decoder.reset()
        return held

    def _first_stop(self) -> tuple[int, str] | None:
        """Where the stop string that is complete first begins in the held text, and which one it is."""
        found = [(self._held.find(stop), stop) for stop in self._stop]
        ends = [(index + len(stop), index, stop) for index, stop in found if index >= 0]
        return min(ends)[1:] if ends else None

    def _longest_beginning_of_a_stop(self) -> int:
        """Length of the longest end of the held text with which a stop string begins."""
        longest = max(len(stop) for stop in self._stop) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stop):
                return length
        return 0
