"""What an engine has done and is doing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Figures of one engine since it was loaded; a snapshot.

    - ``waiting``, ``running``: requests in the queue and in the batch. ``waiting_embeddings``: tasks of embedding.
    - ``cache_tokens_used`` of ``cache_tokens`` hold running requests and ``kept_prefixes``: beginnings kept for prompts
      to come.
    - ``finished``, ``cancelled``, ``failed``: requests that have ended. ``preemptions``: how often one that ran gave
      its room to an older one and was computed again later.
    - ``cached_prompt_tokens`` of the ``prompt_tokens`` were not computed again; ``prefix_hits`` requests had any.
    - ``steps`` took ``busy_seconds``; ``recent_tokens_per_second`` counts the steps of the last ten seconds only.
    - ``adapters``: how many are open.
    """

    waiting: int = 0
    running: int = 0
    waiting_embeddings: int = 0
    kept_prefixes: int = 0
    cache_tokens_used: int = 0
    cache_tokens: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    prefix_hits: int = 0
    completion_tokens: int = 0
    preemptions: int = 0
    busy_seconds: float = 0.0
    recent_tokens_per_second: float = 0.0
    adapters: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens per second of computing; 0.0 before the first."""
        return self.completion_tokens / self.busy_seconds if self.busy_seconds > 0 else 0.0

    @property
    def prefix_hit_rate(self) -> float:
        """The part of all prompt tokens that were not computed again; 0.0 before the first."""
        return self.cached_prompt_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    @property
    def cache_use(self) -> float:
        """The part of the KV cache that is in use, 0 to 1."""
        return self.cache_tokens_used / self.cache_tokens if self.cache_tokens else 0.0
