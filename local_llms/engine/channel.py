"""From the engine's thread to a reader: tokens, and then one outcome."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from local_llms.types import Completion, TokenEvent

Outcome = Completion | BaseException

Wake = Callable[[], object]


class Channel:
    """The part of a stream that the engine holds. Its methods may be called from any thread.

    There is no lock: each line that touches what threads share is one atomic operation of a deque or a list. So the
    garbage collector may end a stream inside whatever call of whatever thread, and neither a fork nor the end of the
    interpreter can leave a lock behind that nobody opens.

    A reader that waits is woken at most once until it waits again, so a slow one costs the engine nothing.
    """

    def __init__(self) -> None:
        self._events: deque[TokenEvent] = deque()
        self._outcomes: list[Outcome] = []
        self._wakes_for_tokens: deque[Wake] = deque()
        self._wakes_for_outcome: deque[Wake] = deque()
        self.watched = False
        """Whether somebody reads the tokens as they come, and does not only wait for the whole answer."""

    def push(self, event: TokenEvent) -> None:
        """Add a token."""
        self._events.append(event)
        _call_all(self._wakes_for_tokens)

    def close(self, outcome: Outcome) -> None:
        """End the stream with an answer or an error. Only the first outcome counts."""
        self._outcomes.append(outcome)
        _call_all(self._wakes_for_tokens)
        _call_all(self._wakes_for_outcome)

    @property
    def outcome(self) -> Outcome | None:
        """The answer or the error; None while the request is under way."""
        return self._outcomes[0] if self._outcomes else None

    def next_event(self) -> TokenEvent | None:
        """The oldest unread token, or None where there is none now."""
        try:
            return self._events.popleft()
        except IndexError:
            return None

    def call_when_ready(self, wake: Wake, *, for_tokens: bool) -> None:
        """Have ``wake`` called once, soon, when there is an outcome or (``for_tokens``) a token."""
        self.watched = self.watched or for_tokens
        wakes = self._wakes_for_tokens if for_tokens else self._wakes_for_outcome
        wakes.append(wake)
        # Whatever came just before that line found nobody to wake.
        if self._outcomes or (for_tokens and self._events):
            _call_all(wakes)


def _call_all(wakes: deque[Wake]) -> None:
    while wakes:
        try:
            wake = wakes.popleft()
        except IndexError:
            return
        wake()
