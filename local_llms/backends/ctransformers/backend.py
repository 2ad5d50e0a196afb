"""The ctransformers backend: one GGML file, computed in a child process."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from local_llms.backends.base import Adapter, BackendInfo, Chunk, LoadOptions, Logits
from local_llms.backends.ctransformers import facts
from local_llms.backends.ctransformers.library import find_library
from local_llms.backends.ctransformers.process import Child, ModelSpec
from local_llms.backends.ctransformers.sequences import Sequences
from local_llms.backends.ctransformers.vocabulary import Vocabulary
from local_llms.errors import EngineClosed, EngineForked, ModelLoadError, UnsupportedFeature
from local_llms.hub.ggml import GGMLHeader

_GGUF = "Load this model as GGUF, and llama.cpp does it."


class CTransformersBackend:
    """Implements ``Backend``."""

    def __init__(self, child: Child, info: BackendInfo, vocabulary: Vocabulary, sequences: Sequences) -> None:
        """Takes over a started child. Use ``load``."""
        self._child = child
        self._info = info
        self._vocabulary = vocabulary
        self._sequences = sequences
        self._computing = threading.Lock()
        self._process = os.getpid()
        self._closed = False
        # The child holds the weights: it goes when the last reference goes, and before the interpreter does.
        self._finalizer = weakref.finalize(self, _end, child, self._process)

    @classmethod
    def load(cls, header: GGMLHeader, options: LoadOptions, name: str) -> CTransformersBackend:
        """Load a checked file, which holds the model ``name``. Raises ModelFileError, ModelLoadError, MissingDependency
        and OptionError.
        """
        decided = facts.plan(header, options)
        facts.check_loadable(header)
        child = Child(ModelSpec(find_library(), header.path.absolute(), header.kind, decided.native_context))
        child.start()
        vocabulary = facts.vocabulary_of(header)
        info = facts.info_of(header, vocabulary, decided, name)
        if child.vocabulary != vocabulary.size or child.context < decided.context:
            child.kill()
            child.close()
            raise ModelLoadError(
                f"ctransformers sees {child.vocabulary} tokens in {header.path}, which has {vocabulary.size}, and a "
                f"context of {child.context}, where {decided.context} was asked for."
            )
        step = facts.STEP_TOKENS[header.kind]
        return cls(child, info, vocabulary, Sequences(child, info, step=step, threads=decided.threads))

    @property
    def info(self) -> BackendInfo:
        """Facts that do not change while the model is loaded."""
        return self._info

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text; see ``Backend.tokenize``."""
        self._check()
        return self._vocabulary.tokenize(text)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text. Raises ValueError where there is no such token."""
        self._check()
        return self._vocabulary.token_bytes(token_id)

    def open_adapter(self, path: Path) -> None:
        """Raises UnsupportedFeature: the library applies adapters to no GGML file."""
        self._check()
        raise UnsupportedFeature(f"A GGML file takes no adapter, so {path} cannot be opened. {_GGUF}")

    def decode(self, chunks: Sequence[Chunk], adapter: Adapter | None = None) -> Logits:
        """Compute new tokens; see ``Backend.decode``. Raises ValueError for chunks that break its rules."""
        with self._alone():
            if adapter is not None:
                raise ValueError(f"the adapter {adapter.path} was not opened")
            return self._sequences.decode(chunks)

    def copy(self, source: int, target: int, length: int) -> None:
        """Begin a sequence like another. Raises ValueError where it is not possible."""
        with self._alone():
            self._sequences.copy(source, target, length)

    def cut(self, sequence: int, length: int) -> None:
        """Shorten a sequence. Raises ValueError where it is not possible."""
        with self._alone():
            self._sequences.cut(sequence, length)

    def free(self, sequence: int) -> None:
        """Empty a sequence."""
        with self._alone():
            self._sequences.free(sequence)

    def embed(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Raises UnsupportedFeature: GGML files of 2023 hold models that generate."""
        self._check()
        raise UnsupportedFeature("A GGML file gives no embeddings. Load an embedding model, such as all-minilm-l6-v2.")

    def encode_for_embedding(self, text: str) -> list[int]:
        """Raises UnsupportedFeature, as ``embed`` does."""
        self._check()
        raise UnsupportedFeature("A GGML file gives no embeddings. Load an embedding model, such as all-minilm-l6-v2.")

    def interrupt(self) -> None:
        """Stop the running computation after the few tokens that the library is at."""
        self._sequences.interrupt()

    def close(self) -> None:
        """End the child process, whatever it is computing, and wait for the call that it was computing for."""
        if os.getpid() != self._process:
            return
        self._closed = True
        self._child.kill()
        with self._computing:
            self._finalizer()

    def _check(self) -> None:
        if os.getpid() != self._process:
            raise EngineForked(
                "The model was loaded before this process was forked, and the process that computes belongs to the "
                'parent. Load it here with load_model(), or start processes with the method "spawn".'
            )
        if self._closed:
            raise EngineClosed("The model was closed. Load it again with load_model().")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._check()
        with self._computing:
            self._check()
            yield


def _end(child: Child, process: int) -> None:
    """End the child, unless this is a fork of the process that it belongs to."""
    if os.getpid() == process:
        child.kill()
        child.close()
