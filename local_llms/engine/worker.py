"""The one thread that owns a backend: it takes requests in, runs steps, and sends tokens out."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from local_llms.backends.base import Backend, Logits
from local_llms.engine.adapters import Adapters
from local_llms.engine.embedding import EmbeddingTask, Vectors
from local_llms.engine.job import Job
from local_llms.engine.pace import Pace
from local_llms.engine.record import Record
from local_llms.engine.request import Sequence as Running
from local_llms.engine.sampler import sample
from local_llms.engine.scheduler import Scheduler
from local_llms.engine.stats import EngineStats
from local_llms.engine.step import Copy, Free, Step
from local_llms.errors import (
    AnswerCut,
    CacheFull,
    ConstraintError,
    DeadlineExceeded,
    DecodeError,
    EngineBusy,
    EngineClosed,
    LocalLLMError,
)
from local_llms.types import Completion

logger = logging.getLogger("local_llms.engine")

_NO_TOKEN = (
    "No token has a finite logit: logit_bias forbids all that may come, or the model's weights or adapter are damaged."
)


class Worker:
    """Runs in a thread of its own until it is closed. The methods without underscore are for other threads."""

    def __init__(self, backend: Backend, *, max_parallel: int, max_queue: int) -> None:
        self._backend = backend
        self._scheduler = Scheduler(backend.info, max_parallel=max_parallel)
        self._max_queue = max_queue
        self._changed = threading.Condition()
        self._arrived: deque[Job] = deque()
        self._embeddings: deque[EmbeddingTask] = deque()
        self._jobs: dict[Running, Job] = {}
        self._closing = False
        self._cancelled: deque[Job] = deque()
        self._computing = threading.Lock()
        self._decoding: tuple[Job, ...] = ()
        self._interrupted = False
        self._record = Record()
        self._adapters = Adapters(backend, self._record.opened)
        self._pace = Pace()
        self._last_use = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="local-llms-engine", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a request. Raises EngineBusy or EngineClosed."""
        with self._changed:
            self._check_open()
            together = self._scheduler.max_parallel
            if len(self._arrived) + len(self._jobs) >= together + self._max_queue and self._is_full():
                raise EngineBusy(
                    f"{together} requests may decode together and {self._max_queue} may wait (max_queue), and as "
                    "many are under way. Try again later, or load the model with a larger max_queue."
                )
            self._arrived.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Stop a request whose stream is closed; a step that serves only such requests is interrupted.

        Never waits, since the garbage collector may call it inside any other call: where somebody else holds the lock,
        the step goes on to its end. Nobody needs to be woken, for a worker with a request does not sleep.
        """
        self._cancelled.append(job)
        if job.ended:
            # A worker that sleeps would hold it until somebody asks again.
            with suppress(ValueError):
                self._cancelled.remove(job)
            return
        if self._computing.acquire(blocking=False):
            try:
                if self._decoding and all(other.channel.outcome is not None for other in self._decoding):
                    self._interrupted = True
                    self._backend.interrupt()
            finally:
                self._computing.release()

    def embed(self, texts: Sequence[Sequence[int]]) -> Future[Vectors]:
        """Queue token ids to be embedded. Raises EngineBusy or EngineClosed."""
        task = EmbeddingTask(texts, self._backend.info)
        with self._changed:
            self._check_open()
            if len(self._embeddings) >= self._max_queue:
                raise EngineBusy(
                    f"{self._max_queue} embedding tasks are waiting already (max_queue={self._max_queue}). "
                    "Try again later, or send more texts in one task."
                )
            self._embeddings.append(task)
            self._changed.notify()
        return task.future

    @property
    def adapters(self) -> Adapters:
        """Of other threads' concern are ``prepare`` and ``is_prepared``."""
        return self._adapters

    def open_adapter(self, path: Path) -> Future[None]:
        """Have an adapter opened, so that requests may name it. Raises EngineClosed."""
        with self._changed:
            self._check_open()
            future = self._adapters.ask(path)
            self._changed.notify()
        return future

    def close(self) -> None:
        """Fail what is under way with EngineClosed, free the backend, and wait for the thread to end."""
        with self._changed:
            if not self._closing:
                self._closing = True
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
        scheduler = self._scheduler
        with self._changed:
            running = len(scheduler.running)
            return replace(
                self._record.stats(time.monotonic()),
                # Every request that has not ended counts, also one that is on its way into the scheduler or out of it.
                waiting=len(self._arrived) + max(len(self._jobs) - running, 0),
                running=running,
                kept_prefixes=scheduler.kept,
                cache_tokens_used=scheduler.cells,
                cache_tokens=self._backend.info.cache_tokens,
                waiting_embeddings=len(self._embeddings),
                preemptions=scheduler.preemptions,
            )

    def _is_full(self) -> bool:
        """Whether the line is full even without the requests that were cancelled and are about to leave."""
        jobs = [*self._arrived, *list(self._jobs.values())]
        live = sum(1 for job in jobs if job.channel.outcome is None)
        return live >= self._scheduler.max_parallel + self._max_queue

    def _check_open(self) -> None:
        if self._closing:
            raise EngineClosed("The model was closed. Load it again with load_model().")

    def _run(self) -> None:
        cause: Exception | None = None
        try:
            while self._receive():
                self._embed_some()
                if self._scheduler.busy:
                    self._step()
        except Exception as error:
            logger.exception("The engine stopped because of an unexpected error")
            cause = error
        finally:
            # Whatever happened, nobody may wait for ever.
            self._end_all(cause)
            self._backend.close()

    def _end_all(self, cause: Exception | None) -> None:
        with self._changed:
            self._closing = True
            jobs = [*self._jobs.values(), *self._arrived]
            tasks = list(self._embeddings)
            for job in jobs:
                job.ended = True
            for held in (self._jobs, self._arrived, self._embeddings, self._cancelled):
                held.clear()
        for end in [*(job.channel.close for job in jobs), *(task.fail for task in tasks), self._adapters.fail]:
            # An error of its own for each, since raising one in two threads would mix their tracebacks.
            failure: EngineClosed | DecodeError = EngineClosed("The model was closed while the request was under way.")
            if cause is not None:
                failure = DecodeError(f"The engine stopped because of an unexpected {type(cause).__name__}: {cause}")
                failure.__cause__ = cause
            end(failure)

    def _receive(self) -> bool:
        """Take in what arrived, waiting where there is nothing to do; False when it is time to end."""
        new: list[Job] = []
        with self._changed:
            while not (self._closing or self._arrived or self._embeddings or self._jobs or self._adapters.asked):
                # What is in line to be cancelled has ended, or is cancelled when it arrives.
                self._cancelled.clear()
                self._changed.wait()
            if self._closing:
                return False
            while self._arrived:
                job = self._arrived.popleft()
                if job.channel.outcome is None:
                    self._jobs[job.sequence] = job
                    new.append(job)
                else:
                    # Cancelled already: its place among the cancelled may have been passed before it got here.
                    job.ended = True
                    self._record.cancelled(job)
        self._adapters.open_asked()
        for job in new:
            self._take_in(job)
        while self._cancelled:
            job = self._cancelled.popleft()
            if job.sequence in self._jobs:
                self._record.cancelled(job)
                self._leave(job, self._scheduler.finish)
        now = time.monotonic()
        for job in [job for job in self._jobs.values() if (job.request.deadline or math.inf) <= now]:
            late = DeadlineExceeded("The request was not finished in the time that timeout= gave it.")
            self._record.failed(job, late)
            self._leave(job, self._scheduler.finish)
            job.channel.close(late)
        return True

    def _take_in(self, job: Job) -> None:
        adapter = job.request.adapter
        if adapter is not None:
            try:
                self._adapters.open(adapter.path)
            except (LocalLLMError, ValueError) as error:
                self._fail(job, error)
                return
        self._scheduler.add(job.sequence)

    def _step(self) -> None:
        started = time.monotonic()
        for sequence, job in self._jobs.items():
            sequence.watched = job.channel.watched
        step = self._scheduler.plan()
        self._move(step.moves)
        for job in (self._jobs[sequence] for sequence in step.sequences):
            if job.started is None:
                job.started = started
                self._record.started(job)
        # Where one decode fails, what is left of the step is planned again.
        done = all(self._decode(part) for part in step.by_adapter())
        now = time.monotonic()
        elapsed = now - started
        self._record.stepped(now, elapsed)
        if done:
            self._adapt(step, elapsed)

    def _decode(self, step: Step) -> bool:
        """Compute a step of one adapter. Where it fails, its requests are tried alone: one cannot harm another."""
        jobs = tuple(self._jobs[sequence] for sequence in step.sequences)
        with self._computing:
            self._decoding, self._interrupted = jobs, False
        try:
            logits = self._backend.decode(step.chunks, step.sequences[0].adapter)
        except CacheFull as error:
            unservable = self._scheduler.cache_full(step)
            if unservable is not None:
                self._fail(self._jobs[unservable], error)
            return False
        except (LocalLLMError, ValueError) as error:
            if len(step.chunks) == 1 and not (self._interrupted or self._closing):
                self._fail(self._jobs[step.sequences[0]], error)
            else:
                # An interruption as well may lose what was computed; its requests are about to be taken out.
                self._move(self._scheduler.retry_alone(step))
            return False
        finally:
            with self._computing:
                self._decoding = ()
        self._advance(step, logits)
        return True

    def _advance(self, step: Step, logits: Logits) -> None:
        """Sample for every sequence whose last token was computed, and hand the tokens out."""
        jobs: list[Job] = []
        places: list[int] = []
        scored: list[Job] = []
        row = 0
        for chunk, sequence in zip(step.chunks, step.sequences, strict=True):
            self._scheduler.computed(sequence, chunk)
            job = self._jobs[sequence]
            if chunk.logits == "all":
                job.score(logits[row : row + len(chunk.tokens)], chunk)
                row += len(chunk.tokens)
                scored += [] if sequence.remaining else [job]
            elif chunk.logits == "last":
                jobs.append(job)
                places.append(row)
                row += 1
        rows = logits if len(places) == len(logits) else logits[places]
        drawn = sample(rows, [job.sampler for job in jobs], [job.allowed() for job in jobs]) if jobs else []
        tokens = [job.settle(token) for job, token in zip(jobs, drawn, strict=True)]
        # The rows are valid until the backend's next call, and a request that ends makes one.
        seen = [job.look(row, token) for row, job, token in zip(rows, jobs, tokens, strict=True)]
        now = time.monotonic()
        for job in scored:
            self._complete(job, job.scored(now))
        for job, token, logprobs in zip(jobs, tokens, seen, strict=True):
            if token < 0:
                self._fail(job, job.stuck or DecodeError(_NO_TOKEN))
                continue
            try:
                outcome = job.accept(token, logprobs, now)
            except ConstraintError as error:
                self._fail(job, error)
                continue
            self._record.token()
            if outcome is not None:
                self._complete(job, outcome)

    def _complete(self, job: Job, outcome: Completion | AnswerCut) -> None:
        if isinstance(outcome, Completion):
            self._record.finished(job, outcome)
        else:
            self._record.failed(job, outcome)
        self._leave(job, self._scheduler.finish)
        job.channel.close(outcome)

    def _fail(self, job: Job, error: Exception) -> None:
        self._record.failed(job, error)
        self._leave(job, self._scheduler.forget)
        job.channel.close(_ours(error))

    def _leave(self, job: Job, take_out: Callable[[Running], list[Free]]) -> None:
        self._last_use = time.monotonic()
        job.ended = True
        del self._jobs[job.sequence]
        self._move(take_out(job.sequence))

    def _move(self, moves: Sequence[Copy | Free]) -> None:
        for move in moves:
            if isinstance(move, Copy):
                self._backend.copy(move.source, move.target, move.length)
            else:
                self._backend.free(move.number)

    def _adapt(self, step: Step, elapsed: float) -> None:
        """Learn how fast it goes, and set the chunk of prompts so that the others' tokens are not held up."""
        lengths = [len(chunk.tokens) for chunk in step.chunks]
        answers = lengths.count(1)
        self._pace.learn(sum(lengths) - answers, answers, elapsed)
        self._scheduler.prompt_chunk = self._pace.chunk(self._backend.info.batch_tokens) or self._scheduler.prompt_chunk

    def _embed_some(self) -> None:
        """Compute a part of the oldest embedding task, and send it to the end of the line."""
        if not self._embeddings:
            return
        task = self._embeddings[0]
        try:
            over = task.advance(self._backend)
        except (LocalLLMError, ValueError) as error:
            if self._closing:
                return
            task.fail(_ours(error))
            over = True
        with self._changed:
            self._last_use = time.monotonic()
            self._embeddings.popleft()
            if not over:
                self._embeddings.append(task)


def _ours(error: Exception) -> LocalLLMError:
    """An error of this package; what a backend refused with ValueError becomes a DecodeError."""
    if isinstance(error, LocalLLMError):
        return error
    wrapped = DecodeError(f"The model could not compute the request: {error}")
    wrapped.__cause__ = error
    return wrapped
