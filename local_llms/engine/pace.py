"""How much of a prompt a step may read while others decode: what a pause between two tokens may last, and the speed.

Pure: no clock. The worker tells how long its steps took.
"""

from __future__ import annotations

PAUSE = 0.4
"""Seconds that reading prompts may add to a step, about, while sequences decode."""

SMALLEST_CHUNK = 32
"""Tokens: less is not read at once even by a slow machine, since every step has costs of its own."""

_NEWEST = 0.3
_LEAST_SHARE = 0.25


class Pace:
    """The speed of decoding and of reading prompts, each as a moving mean of the last steps."""

    def __init__(self) -> None:
        self.prompt_speed = 0.0
        """Prompt tokens a second; 0.0 until a prompt was read."""
        self._answer_seconds = 0.0

    def learn(self, prompt_tokens: int, answer_tokens: int, seconds: float) -> None:
        """Take in a step that computed so many tokens of prompts and of answers in so many seconds.

        A step with both tells the speed of reading by what it took longer than its answers alone would have.
        """
        if seconds <= 0:
            return
        if prompt_tokens >= SMALLEST_CHUNK:
            reading = max(seconds - answer_tokens * self._answer_seconds, seconds * _LEAST_SHARE)
            self.prompt_speed = _mean(self.prompt_speed, prompt_tokens / reading)
        elif answer_tokens and not prompt_tokens:
            self._answer_seconds = _mean(self._answer_seconds, seconds / answer_tokens)

    def chunk(self, most: int) -> int | None:
        """Prompt tokens for a step in which others decode, at most ``most``; None until the speed is known."""
        if not self.prompt_speed:
            return None
        return min(max(SMALLEST_CHUNK, int(self.prompt_speed * PAUSE)), most)


def _mean(before: float, newest: float) -> float:
    return newest if before == 0.0 else (1 - _NEWEST) * before + _NEWEST * newest
