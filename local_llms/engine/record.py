"""What an engine tells of its work: figures, and lines for the logger "local_llms.engine"."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path

from local_llms.engine.job import Job
from local_llms.engine.stats import EngineStats
from local_llms.logs import log_event
from local_llms.types import Completion

RECENT_SECONDS = 10.0

_logger = logging.getLogger("local_llms.engine")


class Record:
    """Counts. All methods are for the engine's thread but ``stats``."""

    def __init__(self) -> None:
        self._finished = self._cancelled = self._failed = self._steps = 0
        self._prompt = self._cached = self._hits = self._completion = self._adapters = 0
        self._busy_seconds = 0.0
        self._in_step = 0
        self._recent: deque[tuple[float, float, int]] = deque()

    def started(self, job: Job) -> None:
        """A request is computed for the first time."""
        sequence = job.sequence
        self._prompt += sequence.prompt_length
        self._cached += sequence.cached
        self._hits += sequence.cached > 0
        log_event(
            _logger,
            logging.DEBUG,
            "request started",
            {"request": job.number, "prompt_tokens": sequence.prompt_length, "cached_prompt_tokens": sequence.cached},
        )

    def finished(self, job: Job, completion: Completion) -> None:
        """A request has its answer."""
        self._finished += 1
        timings = completion.timings
        log_event(
            _logger,
            logging.DEBUG,
            "request finished",
            {
                "request": job.number,
                "finish_reason": completion.finish_reason,
                "prompt_tokens": completion.usage.prompt_tokens,
                "cached_prompt_tokens": completion.usage.cached_prompt_tokens,
                "completion_tokens": completion.usage.completion_tokens,
                "queued": timings.queued,
                "first_token": timings.first_token,
                "total": timings.total,
            },
        )

    def cancelled(self, job: Job) -> None:
        """A request was given up by its caller."""
        self._cancelled += 1
        log_event(
            _logger, logging.DEBUG, "request cancelled", {"request": job.number, "completion_tokens": job.generated}
        )

    def failed(self, job: Job, error: BaseException) -> None:
        """A request ended with an error."""
        self._failed += 1
        fields = {"request": job.number, "completion_tokens": job.generated, "error": type(error).__name__}
        log_event(_logger, logging.DEBUG, "request failed", fields)

    def opened(self, path: Path, seconds: float) -> None:
        """An adapter was loaded."""
        self._adapters += 1
        log_event(_logger, logging.INFO, "adapter opened", {"path": str(path), "seconds": seconds})

    def token(self) -> None:
        """A token of an answer was chosen."""
        self._completion += 1
        self._in_step += 1

    def stepped(self, now: float, elapsed: float) -> None:
        """A step took ``elapsed`` seconds until ``now``."""
        self._steps += 1
        self._busy_seconds += elapsed
        self._recent.append((now, elapsed, self._in_step))
        self._in_step = 0
        while self._recent[0][0] < now - RECENT_SECONDS:
            self._recent.popleft()

    def stats(self, now: float) -> EngineStats:
        """The figures kept here; those of the queue and the cache are to be filled in."""
        recent = [(elapsed, tokens) for end, elapsed, tokens in self._recent.copy() if end >= now - RECENT_SECONDS]
        seconds = sum(elapsed for elapsed, _ in recent)
        return EngineStats(
            finished=self._finished,
            cancelled=self._cancelled,
            failed=self._failed,
            steps=self._steps,
            prompt_tokens=self._prompt,
            cached_prompt_tokens=self._cached,
            prefix_hits=self._hits,
            completion_tokens=self._completion,
            busy_seconds=self._busy_seconds,
            recent_tokens_per_second=sum(tokens for _, tokens in recent) / seconds if seconds > 0 else 0.0,
            adapters=self._adapters,
        )
