"""The engine's face: check a request, hand it to the worker, and give back its stream."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from local_llms.backends.base import Backend, BackendInfo
from local_llms.constraints import Compiler
from local_llms.engine.job import Job
from local_llms.engine.logprobs import TokenNames
from local_llms.engine.request import Request, room_for
from local_llms.engine.stats import EngineStats
from local_llms.engine.stream import Observer, Stream
from local_llms.engine.worker import Worker
from local_llms.errors import ContextOverflow, EmptyPrompt, EngineForked, OptionError, UnsupportedFeature


class Engine:
    """Serves one loaded backend. All methods may be called from any thread."""

    def __init__(self, backend: Backend, *, max_parallel: int = 16, max_queue: int = 256) -> None:
        """Takes the backend over: from now on only the engine's thread computes with it.

        ``max_parallel``: requests that decode together. ``max_queue``: requests that may wait beside those, and
        embedding tasks that may.
        """
        self._backend = backend
        self._process = os.getpid()
        self._compiler = Compiler(backend)
        self._names = TokenNames(backend)
        self._worker = Worker(backend, max_parallel=max_parallel, max_queue=max_queue)

    @property
    def backend(self) -> Backend:
        """For ``tokenize``, ``token_bytes`` and ``info`` only."""
        return self._backend

    @property
    def info(self) -> BackendInfo:
        """Facts about the loaded model."""
        return self._backend.info

    @property
    def constraints(self) -> Compiler:
        """Makes of a constraint what a request carries; built for this model's vocabulary at its first use."""
        return self._compiler

    def submit(self, request: Request, *, observers: Sequence[Observer] = ()) -> Stream:
        """Queue a request and return its stream at once. The observers' ``on_start`` is called here.

        Raises EmptyPrompt, ContextOverflow, OptionError, UnsupportedFeature, EngineBusy, EngineClosed, EngineForked or
        CallbackError.
        """
        self._check_process()
        self._check(request)
        job = Job(request, self.info, self._backend.token_bytes, self._names, time.monotonic())
        self._worker.submit(job)
        worker = self._worker
        stream = Stream(job.channel, lambda: worker.cancel(job), deadline=request.deadline, observers=observers)
        stream.begin(len(request.prompt_ids))
        return stream

    def embed(self, texts: Sequence[Sequence[int]]) -> Future[NDArray[np.float32]]:
        """Queue token ids to be embedded; the future gives an array of shape (texts, embedding size).

        Raises UnsupportedFeature, EngineBusy, EngineClosed or EngineForked. A future that is cancelled stops the
        computing at the next call of the backend.
        """
        self._check_process()
        if self.info.embedding_size is None:
            raise UnsupportedFeature(
                f"The model {self.info.name or self.info.architecture} generates text and makes no embeddings. "
                'Load an embedding model, such as "all-minilm-l6-v2".'
            )
        return self._worker.embed(texts)

    def prepare_adapter(self, path: Path) -> None:
        """Open an adapter in the calling thread, before a request names it: the engine's own goes on meanwhile.

        What is wrong with it is told by ``open_adapter``, and by the stream of a request. Raises UnsupportedFeature and
        EngineForked.
        """
        self._check_process()
        self.check_generates()
        self._worker.adapters.prepare(path)

    def prepare(self, request: Request) -> None:
        """The same for the adapter of a request, where it has one."""
        if request.adapter is not None:
            self.prepare_adapter(request.adapter.path)

    def has_adapter(self, path: Path) -> bool:
        """Whether an adapter is in memory, so that ``prepare_adapter`` takes no time."""
        return self._worker.adapters.is_prepared(path)

    def open_adapter(self, path: Path) -> Future[None]:
        """Have an adapter opened before a request names it, to learn early whether it fits.

        The future fails with AdapterError or UnsupportedFeature. Raises EngineClosed or EngineForked.
        """
        self._check_process()
        self.check_generates()
        return self._worker.open_adapter(path)

    def stats(self) -> EngineStats:
        """What the engine has done and is doing. Raises EngineForked."""
        self._check_process()
        return self._worker.stats()

    def idle_seconds(self) -> float:
        """Seconds since there was last something to do; 0.0 while there is. Raises EngineForked."""
        self._check_process()
        return self._worker.idle_seconds()

    @property
    def closed(self) -> bool:
        """Whether requests are refused, after ``close`` or a failure of the whole engine."""
        return self._worker.closed

    def close(self) -> None:
        """Fail what is under way with EngineClosed and free the weights. Closing twice does nothing."""
        if os.getpid() == self._process:
            self._worker.close()

    def check_generates(self) -> None:
        """Raise UnsupportedFeature where the model makes embeddings only."""
        info = self.info
        if not info.can_generate:
            raise UnsupportedFeature(
                f"The model {info.name or info.architecture} makes embeddings and cannot generate text. "
                "Use embed() or LocalEmbeddings, or load a generating model."
            )

    def _check(self, request: Request) -> None:
        """Refuse what could not be served, or would harm others."""
        info = self.info
        self.check_generates()
        if not request.prompt_ids:
            raise EmptyPrompt("The prompt is empty. Give it some text.")
        room = room_for(info)
        if request.score and len(request.prompt_ids) > room:
            raise ContextOverflow(len(request.prompt_ids), room, "Score the text in parts.")
        if len(request.prompt_ids) >= room and not request.score:
            hint = "Shorten it, or load the model with a larger cache_tokens."
            if room == info.context_length:
                trained = info.trained_context_length
                hint = f"Shorten it, or load the model with a larger context_length (it was trained with {trained})."
                if trained <= room:
                    hint = "Shorten it: the model was trained with no more."
            hint += ' A conversation may lose its oldest turns instead: context_overflow="drop_oldest".'
            raise ContextOverflow(len(request.prompt_ids), room, hint)
        for token, bias in request.params.logit_bias.items():
            if not 0 <= token < info.vocabulary_size:
                raise OptionError(f"logit_bias names the token {token}; the ids go to {info.vocabulary_size - 1}.")
            if math.isnan(bias) or bias == math.inf:
                raise OptionError(f"logit_bias gives the token {token} {bias}; give a number, or -inf to forbid it.")

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise EngineForked(
                "The model was loaded before this process was forked, and its threads and memory stayed behind. "
                'Load it in the child, or start processes with the "spawn" method.'
            )
