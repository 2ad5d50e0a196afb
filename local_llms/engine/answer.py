"""One answer as its tokens come: what it thinks, what it says, and which stop string ends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from local_llms.engine.text import TextAssembler
from local_llms.engine.thought import Thinking, Thought


@dataclass(frozen=True, slots=True)
class Said:
    """What a token adds: text of the thought, and text of the answer."""

    reasoning: str = ""
    text: str = ""


class Answer:
    """Puts the texts of one answer together, token by token.

    Stop strings of a caller count in the answer alone, not in its thought; those of a template, which mark the end of a
    turn, count in both.
    """

    def __init__(self, thinking: Thinking | None, stop: Sequence[str], *, trims: bool, exact: bool) -> None:
        """``thinking``: None where the answer has no thought. ``stop`` and ``trims``: as for ``TextAssembler``.

        ``exact``: the answer is held to a grammar, so that none of it may be left out.
        """
        self.thought = None if thinking is None else Thought(thinking, exact=exact)
        self._reasoning = TextAssembler(() if thinking is None or exact else thinking.stop, trims=True)
        self._stop = stop
        self._exact = exact
        self._text = TextAssembler(stop, trims=trims)

    @property
    def begun(self) -> bool:
        """Whether the next token belongs to the answer itself, and not to its thought."""
        return self.thought is None or self.thought.over

    @property
    def stop_match(self) -> str | None:
        """The stop string that was found."""
        return self._reasoning.stop_match or self._text.stop_match

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of the thought and its tags."""
        return 0 if self.thought is None else self.thought.tokens

    def push(self, token: int, data: bytes, *, heed_stops: bool = True) -> Said:
        """Take a token that is no end; what is certain now. ``heed_stops``: as for ``TextAssembler.push``."""
        if self.thought is None or self.begun:
            return Said(text=self._text.push(data, heed_stops=heed_stops))
        was_open = not self.thought.closed
        thought, answer = self.thought.push(token, data)
        reasoning = self._reasoning.push(thought)
        if was_open and self.thought.closed and self.thought.tokens:
            reasoning += self._reasoning.finish()
            if not self._exact:
                self._text = TextAssembler(self._stop, trims=True)
        return Said(reasoning, self._text.push(answer, heed_stops=heed_stops))

    def finish(self) -> Said:
        """What was held back, once no token follows."""
        thought, answer = (b"", b"") if self.thought is None else self.thought.finish()
        reasoning = self._reasoning.push(thought) + self._reasoning.finish()
        return Said(reasoning, self._text.push(answer) + self._text.finish())
