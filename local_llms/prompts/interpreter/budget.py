"""What a template may use up. A template from a model file is a stranger's program, and a sandbox stops no loop."""

from __future__ import annotations

import time

SECONDS = 1.0
"""Of computing: on a busy machine the same template takes longer by the clock, and is no more hostile for it."""
STEPS = 1_000_000
# Characters that all values together may take; a character takes up to four bytes.
MEMORY = 8 * 1024 * 1024
MEMORY_PER_INPUT = 64
DEPTH = 40
SOURCE = 40_000
"""Most characters of a template. The longest ones in use have about 20,000 (models/templates of ggml-org/llama.cpp)."""
INTEGER_BITS = 4096


class Failure(Exception):
    """A template cannot be carried out; ``line`` is filled in on the way up, where it is known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


class Raised(Failure):
    """The template itself called ``raise_exception``."""


class Budget:
    """What one rendering may still use: time, steps, memory and depth. Whoever does work asks here first."""

    __slots__ = ("_depth", "_look_again", "_memory", "_start", "_steps")

    def __init__(self) -> None:
        self._start = time.thread_time()
        self._look_again = time.monotonic() + SECONDS
        self._steps = STEPS
        self._memory = MEMORY
        self._depth = 0

    def step(self, count: int = 1) -> None:
        """Ask for ``count`` small pieces of work."""
        self._steps -= count
        if self._steps < 0:
            raise Failure(f"it takes more than {STEPS} steps")
        if time.monotonic() > self._look_again:
            self._look_at_the_time()

    def spend(self, characters: int) -> None:
        """Ask for memory, in characters. It is not given back."""
        self._memory -= characters
        if self._memory < 0:
            raise Failure("it builds too much text")

    def allow(self, characters: int) -> None:
        """Note that the template is given so much text: it may use more memory."""
        self._memory += MEMORY_PER_INPUT * characters

    def enter(self) -> None:
        """Begin a call."""
        self._depth += 1
        if self._depth > DEPTH:
            raise Failure(f"its calls nest deeper than {DEPTH}")

    def leave(self) -> None:
        """End a call."""
        self._depth -= 1

    def _look_at_the_time(self) -> None:
        # The time of a thread is slow to ask for, the clock is quick: so it is asked for when it can have run out.
        left = SECONDS - (time.thread_time() - self._start)
        if left < 0:
            raise Failure(f"it takes longer than {SECONDS:g} s")
        self._look_again = time.monotonic() + max(left, 0.01)
