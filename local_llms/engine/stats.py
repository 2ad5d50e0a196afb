"""What an engine has done and is doing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Figures of one engine since it was loaded; a snapshot.

    ``cache_tokens_used`` of ``cache_tokens`` hold running requests and kept prefixes. ``preemptions`` counts how often
    a running request gave its room to an older one and was computed again later.
    """

    waiting: int = 0
    running: int = 0
    kept_prefixes: int = 0
    cache_tokens_used: int = 0
    cache_tokens: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    preemptions: int = 0
    busy_seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens per second of computing; 0.0 before the first."""
        return self.completion_tokens / self.busy_seconds if self.busy_seconds > 0 else 0.0
