"""The one thread that owns a backend: it takes requests in, runs steps, and sends tokens out."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from local_llms.backends.base import Backend, Logits
from local_llms.engine.job import Job
from local_llms.engine.request import Sequence as Running
from local_llms.engine.sampler import log_probability, sample
from local_llms.engine.scheduler import Copy, Free, Scheduler, Step
from local_llms.engine.stats import EngineStats
from local_llms.errors import (
    CacheFull,
    DeadlineExceeded,
    DecodeError,
    EngineBusy,
    EngineClosed,
    LocalLLMError,
)
from local_llms.types import Completion

logger = logging.getLogger("local_llms.engine")

STALL_SECONDS = 0.25
"""How long a step may take, about, while sequences decode: prompts are read in chunks of that size."""

SMALLEST_CHUNK = 32

EmbeddingTask = tuple[list[list[int]], "Future[NDArray[np.float32]]"]


class Worker:
    """Runs in a thread of its own until it is closed. The methods without underscore are for other threads."""

    def __init__(self, backend: Backend, *, max_parallel: int, max_queue: int) -> None:
        self._backend = backend
        self._scheduler = Scheduler(backend.info, max_parallel=max_parallel)
        self._max_queue = max_queue
        self._changed = threading.Condition()
        self._arrived: deque[Job] = deque()
        self._cancelled: deque[Job] = deque()
        self._embeddings: deque[EmbeddingTask] = deque()
        self._closing = False
        self._jobs: dict[Running, Job] = {}
        self._decoding: tuple[Job, ...] = ()
        self._interrupted = False
        self._counts = dict.fromkeys(("finished", "cancelled", "failed", "steps", "prompt", "cached", "completion"), 0)
        self._busy_seconds = 0.0
        self._prompt_speed = 0.0
        self._last_use = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="local-llms-engine", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a request. Raises EngineBusy or EngineClosed."""
        with self._changed:
            self._check_open()
            if len(self._arrived) + len(self._scheduler.waiting) >= self._max_queue:
                raise EngineBusy(
                    f"{self._max_queue} requests are waiting already (max_queue={self._max_queue}). "
                    "Try again later, send fewer at once, or load the model with a larger max_queue."
                )
            self._arrived.append(job)
            self._last_use = time.monotonic()
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Stop a request; a long step that serves it alone is interrupted."""
        with self._changed:
            if self._closing:
                return
            self._cancelled.append(job)
            if self._decoding == (job,):
                self._interrupted = True
                self._backend.interrupt()
            self._changed.notify()

    def embed(self, texts: list[list[int]]) -> Future[NDArray[np.float32]]:
        """Queue token ids to be embedded. Raises EngineClosed."""
        future: Future[NDArray[np.float32]] = Future()
        with self._changed:
            self._check_open()
            self._embeddings.append((texts, future))
            self._last_use = time.monotonic()
            self._changed.notify()
        return future

    def close(self) -> None:
        """Fail what is under way with EngineClosed, free the backend, and wait for the thread to end."""
        with self._changed:
            self._closing = True
            self._interrupted = True
            self._backend.interrupt()
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def closed(self) -> bool:
        """Whether it no longer takes requests."""
        return self._closing

    def idle_seconds(self) -> float:
        """Seconds since there was last something to do; 0.0 while there is."""
        with self._changed:
            if self._jobs or self._arrived or self._embeddings:
                return 0.0
            return time.monotonic() - self._last_use

    def stats(self) -> EngineStats:
        """A snapshot of the figures."""
        scheduler, counts = self._scheduler, self._counts
        with self._changed:
            return EngineStats(
                waiting=len(self._arrived) + len(scheduler.waiting),
                running=len(scheduler.running),
                kept_prefixes=scheduler.kept,
                cache_tokens_used=scheduler.cells,
                cache_tokens=self._backend.info.cache_tokens,
                finished=counts["finished"],
                cancelled=counts["cancelled"],
                failed=counts["failed"],
                steps=counts["steps"],
                prompt_tokens=counts["prompt"],
                cached_prompt_tokens=counts["cached"],
                completion_tokens=counts["completion"],
                preemptions=scheduler.preemptions,
                busy_seconds=self._busy_seconds,
            )

    def _check_open(self) -> None:
        if self._closing:
            raise EngineClosed("The model was closed. Load it again with load_model().")

    def _run(self) -> None:
        failure: BaseException = EngineClosed("The model was closed while the request was under way.")
        try:
            while self._receive():
                if self._embeddings:
                    self._embed_some()
                if self._scheduler.busy:
                    self._step()
        except BaseException as error:
            logger.exception("The engine stopped because of an unexpected error")
            # Whatever it was, nobody may wait for ever.
            failure = DecodeError(f"The engine stopped because of an unexpected {type(error).__name__}: {error}")
            failure.__cause__ = error
        finally:
            with self._changed:
                self._closing = True
                pending = [*self._jobs.values(), *self._arrived]
                futures = [future for _, future in self._embeddings]
            for job in pending:
                job.channel.close(failure)
            for future in futures:
                if future.set_running_or_notify_cancel():
                    future.set_exception(failure)
            self._backend.close()

    def _receive(self) -> bool:
        """Take in what arrived, waiting where there is nothing to do; False when it is time to end."""
        with self._changed:
            while not (self._closing or self._arrived or self._cancelled or self._embeddings or self._scheduler.busy):
                self._last_use = time.monotonic()
                self._changed.wait()
            if self._closing:
                return False
            while self._arrived:
                job = self._arrived.popleft()
                self._jobs[job.sequence] = job
                self._scheduler.add(job.sequence)
            cancelled = list(self._cancelled)
            self._cancelled.clear()
        for job in cancelled:
            if job.sequence in self._jobs:
                self._counts["cancelled"] += 1
                self._leave(job, self._scheduler.finish)
        now = time.monotonic()
        for job in [job for job in self._jobs.values() if job.request.deadline is not None]:
            if now >= (job.request.deadline or now):
                self._fail(job, DeadlineExceeded("The request was not finished in the time that timeout= gave it."))
        return True

    def _step(self) -> None:
        started = time.monotonic()
        with self._changed:
            step = self._scheduler.plan()
            self._decoding = tuple(self._jobs[sequence] for sequence in step.sequences)
        self._move(step.moves)
        for job in self._decoding:
            if job.started is None:
                job.started = started
                self._counts["prompt"] += job.sequence.prompt_length
                self._counts["cached"] += job.sequence.cached
        if step.chunks:
            self._decode(step)
        self._decoding = ()
        elapsed = time.monotonic() - started
        self._counts["steps"] += 1
        self._busy_seconds += elapsed
        self._adapt(step, elapsed)

    def _decode(self, step: Step) -> None:
        """Compute a step. Where it fails, each request is tried alone, so that one cannot harm another."""
        try:
            logits = self._backend.decode(step.chunks)
        except CacheFull as error:
            moves = self._scheduler.give_room()
            self._move(moves)
            if not moves:
                self._fail(self._jobs[step.sequences[0]], error)
            return
        except (LocalLLMError, ValueError) as error:
            if self._interrupted:
                # The steps' sequences are as before; whoever was cancelled is taken out before the next one.
                self._interrupted = False
                return
            if len(step.chunks) == 1:
                self._fail(self._jobs[step.sequences[0]], error)
                return
            for chunk, sequence in zip(step.chunks, step.sequences, strict=True):
                self._decode(Step(chunks=[chunk], sequences=[sequence]))
            return
        self._advance(step, logits)

    def _advance(self, step: Step, logits: Logits) -> None:
        """Sample for every sequence whose last token was computed, and hand the tokens out."""
        jobs: list[Job] = []
        for chunk, sequence in zip(step.chunks, step.sequences, strict=True):
            self._scheduler.computed(sequence, chunk)
            if chunk.logits == "last":
                jobs.append(self._jobs[sequence])
        if not jobs:
            return
        tokens = sample(logits, [job.sampler for job in jobs])
        now = time.monotonic()
        for row, (job, token) in enumerate(zip(jobs, tokens, strict=True)):
            if token < 0:
                self._fail(job, DecodeError("The model gave no finite logit: its weights or its adapter are damaged."))
                continue
            logprob = log_probability(logits[row], token) if job.request.logprobs else None
            completion = job.accept(token, logprob, now)
            self._counts["completion"] += 1
            if completion is not None:
                self._complete(job, completion)

    def _complete(self, job: Job, completion: Completion) -> None:
        self._counts["finished"] += 1
        self._leave(job, self._scheduler.finish)
        job.channel.close(completion)

    def _fail(self, job: Job, error: BaseException) -> None:
        self._counts["failed"] += 1
        self._leave(job, self._scheduler.forget)
        job.channel.close(error)

    def _leave(self, job: Job, take_out: Callable[[Running], list[Free]]) -> None:
        with self._changed:
            del self._jobs[job.sequence]
            moves = take_out(job.sequence)
            self._last_use = time.monotonic()
        self._move(moves)

    def _move(self, moves: Sequence[Copy | Free]) -> None:
        for move in moves:
            if isinstance(move, Copy):
                self._backend.copy(move.source, move.target, move.length)
            else:
                self._backend.free(move.number)

    def _adapt(self, step: Step, elapsed: float) -> None:
        """Learn how fast prompts are read, and set the chunk so that the others' tokens are not held up."""
        read = sum(len(chunk.tokens) for chunk in step.chunks)
        if read < SMALLEST_CHUNK or elapsed <= 0:
            return
        speed = read / elapsed
        self._prompt_speed = speed if self._prompt_speed == 0.0 else 0.7 * self._prompt_speed + 0.3 * speed
        chunk = int(self._prompt_speed * STALL_SECONDS)
        self._scheduler.prompt_chunk = max(SMALLEST_CHUNK, min(chunk, self._backend.info.batch_tokens))

    def _embed_some(self) -> None:
        """Embed the texts of the oldest waiting task."""
        texts, future = self._embeddings.popleft()
        if not future.set_running_or_notify_cancel():
            return
        try:
            vectors = [self._backend.embed(part) for part in self._parts(texts)]
        except (LocalLLMError, ValueError) as error:
            closed = EngineClosed("The model was closed while the request was under way.")
            future.set_exception(closed if self._closing else error)
            return
        future.set_result(np.concatenate(vectors))

    def _parts(self, texts: list[list[int]]) -> list[list[list[int]]]:
        """Texts grouped so that each group fits into one call of the backend; a long text is alone in its group."""
        info = self._backend.info
        parts: list[list[list[int]]] = [[]]
        room = info.batch_tokens
        for text in texts:
            if parts[-1] and (len(text) > room or len(parts[-1]) >= info.max_sequences):
                parts.append([])
                room = info.batch_tokens
            parts[-1].append(text)
            room -= len(text)
        return parts
