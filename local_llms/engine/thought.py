"""The thought in front of an answer: told apart from it by its tags, bounded, and closed where it has to end."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Spelled = tuple[tuple[int, bytes], ...]
"""Tokens, each with the bytes that it adds to a text."""


@dataclass(frozen=True, slots=True)
class Thinking:
    """How an answer may begin with a thought.

    - ``opening``: the tag that the answer has to begin with, or what the prompt left of it; b"" where the prompt has
      all of it. ``begun``: whether the prompt has any of it, so that the answer begins with a thought in any case.
    - ``closing``: the tag that ends the thought.
    - ``tags``: tokens that are a tag and add no text, each with the tag.
    - ``open_with``: tokens that the engine begins the answer with, so that there is a thought; () leaves it to the
      model.
    - ``before``, ``close_with``, ``behind``: the tokens of what stands in front of the closing tag, of the tag itself,
      and of what stands between it and an answer.
    - ``most``: tokens between the tags; then the engine closes the thought. None: no bound.
    - ``stop``: strings that end the whole answer even within the thought.
    """

    opening: bytes
    begun: bool
    closing: bytes
    tags: Mapping[int, bytes] = field(default_factory=dict)
    open_with: tuple[int, ...] = ()
    before: Spelled = ()
    close_with: Spelled = ()
    behind: Spelled = ()
    most: int | None = None
    stop: tuple[str, ...] = ()


class Thought:
    """Follows the tokens of one answer through its thought, byte by byte: a tag may be cut into tokens in any way.

    White space around the thought and its tags belongs to neither thought nor answer.
    """

    def __init__(self, thinking: Thinking, *, exact: bool) -> None:
        """``exact``: the answer is held to a grammar, which governs it from its first byte on.

        Then a token that holds the end of the closing tag and the beginning of an answer is not taken, the white space
        between the two is written by the engine, and no end token ends the answer within the thought.
        """
        self._thinking = thinking
        self._exact = exact
        self._place: Literal["before", "inside", "behind"] = "before" if thinking.opening else "inside"
        self._held = b""
        self._length = 0
        self.tokens = 0
        """Tokens of the thought and its tags so far; 0 where there is no thought."""
        self.forced: deque[int] = deque(thinking.open_with)
        """The tokens that have to come next."""
        self._keep_the_bound()

    @property
    def closed(self) -> bool:
        """Whether the thought is over, or there is none."""
        return self._place == "behind"

    @property
    def over(self) -> bool:
        """Whether the next token is the answer's, and none that the engine writes behind a thought."""
        return self.closed and not self.forced

    def settle(self, token: int, data: bytes, *, ends: bool) -> int:
        """The token to take where ``token`` was sampled; ``data`` are its bytes, ``ends`` says that it is an end."""
        if not self._exact or self.closed or self.forced:
            return token
        text = self._held + self._thinking.tags.get(token, data)
        behind = text.partition(self._thinking.closing)[2]
        if not ends and not behind.strip():
            return token
        self._close()
        return self.forced[0]

    def push(self, token: int, data: bytes) -> tuple[bytes, bytes]:
        """Take a token; what is certain now of the thought, and what of the answer has come already."""
        if self.forced:
            self.forced.popleft()
        if self.closed:
            # White space that the engine writes.
            return b"", b""
        self.tokens += 1
        self._held += self._thinking.tags.get(token, data)
        if self._place == "inside":
            self._length += 1
        elif not self._opens():
            return b"", self._give_back()
        thought, answer = self._read()
        self._keep_the_bound()
        return thought, answer

    def finish(self) -> tuple[bytes, bytes]:
        """What was held back of the thought, or of an answer that seemed to begin with one, once no token follows."""
        if self._place == "before":
            return b"", self._give_back()
        held, self._held = self._held.rstrip(), b""
        return held, b""

    def _opens(self) -> bool:
        """Whether the answer begins with a thought, or may still do so; goes inside once it is certain."""
        opening, begun = self._thinking.opening, self._thinking.begun
        text = self._held if begun else self._held.lstrip()
        if text.startswith(opening):
            self._place, self._held = "inside", text[len(opening) :]
        elif begun and not opening.startswith(text):
            self._place = "inside"
        return self._place == "inside" or opening.startswith(text)

    def _give_back(self) -> bytes:
        """There is no thought: what was held back is the answer's."""
        held, self._held = self._held, b""
        self._place, self.tokens = "behind", 0
        return held

    def _read(self) -> tuple[bytes, bytes]:
        if self._place == "before":
            return b"", b""
        thought, tag, answer = self._held.partition(self._thinking.closing)
        if tag:
            self._place, self._held = "behind", b""
            if self._exact and not self.forced and not answer:
                self.forced.extend(token for token, _ in self._thinking.behind)
            return thought.rstrip(), b"" if self._exact else answer
        keep = len(self._held) - self._end_of_tag()
        keep = len(self._held[:keep].rstrip())
        thought, self._held = self._held[:keep], self._held[keep:]
        return thought, b""

    def _end_of_tag(self) -> int:
        """Length of the longest end of the held text with which the closing tag begins."""
        closing = self._thinking.closing
        lengths = range(min(len(closing) - 1, len(self._held)), 0, -1)
        return next((length for length in lengths if self._held.endswith(closing[:length])), 0)

    def _keep_the_bound(self) -> None:
        most = self._thinking.most
        if self._place == "inside" and most is not None and self._length >= most and not self.forced:
            self._close()

    def _close(self) -> None:
        """Have the closing tag come, or what is missing of it."""
        before, tag, behind = self._thinking.before, self._thinking.close_with, self._thinking.behind
        for done in range(len(tag) - 1, 0, -1):
            if self._held.endswith(_text(tag[:done])):
                self.forced.extend(token for token, _ in (*tag[done:], *behind))
                return
        lead = () if before and self._held.endswith(_text(before)) else before
        self.forced.extend(token for token, _ in (*lead, *tag, *behind))


def _text(spelled: Spelled) -> bytes:
    return b"".join(data for _, data in spelled)
