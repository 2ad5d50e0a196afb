"""The llama.cpp backend: one loaded GGUF file."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from local_llms.backends.base import Adapter, BackendInfo, Chunk, LoadOptions, Logits
from local_llms.backends.llama_cpp.embedder import Embedder
from local_llms.backends.llama_cpp.facts import ModelFacts, plan_context
from local_llms.backends.llama_cpp.loras import Loras
from local_llms.backends.llama_cpp.native import Native
from local_llms.backends.llama_cpp.sequences import Sequences
from local_llms.backends.llama_cpp.vocabulary import Vocabulary
from local_llms.errors import UnsupportedFeature
from local_llms.hub.gguf import GGUFHeader


class LlamaCppBackend:
    """Implements ``Backend``: a model that generates, or one that embeds; which, its file says."""

    def __init__(self, native: Native, info: BackendInfo, vocabulary: Vocabulary, loras: Loras) -> None:
        """Takes over ``native``. Use ``load``."""
        self._native = native
        self._info = info
        self._vocabulary = vocabulary
        self._sequences = Sequences(native, info, loras) if info.can_generate else None
        self._embedder = Embedder(native, info, vocabulary) if info.embedding_size is not None else None
        # Weights are large: they go when the last reference goes, and before the interpreter does.
        weakref.finalize(self, native.close)

    @classmethod
    def load(cls, header: GGUFHeader, options: LoadOptions) -> LlamaCppBackend:
        """Load a checked file. Raises ModelLoadError, OptionError and UnsupportedFeature."""
        facts = ModelFacts.of(header)
        native = Native(header, options)
        try:
            facts.check_kind(native.model)
            context_length, plan = plan_context(facts, options, native)
            native.open_context(plan)
            vocabulary = Vocabulary(native, declared_bos=facts.declares_bos)
            info = facts.info(native, vocabulary, context_length, plan)
            return cls(native, info, vocabulary, Loras(native, header))
        except BaseException:
            native.close()
            raise

    @property
    def info(self) -> BackendInfo:
        """Facts that do not change while the model is loaded."""
        return self._info

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text; see ``Backend.tokenize``."""
        return self._vocabulary.tokenize(text)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text. Raises ValueError where there is no such token."""
        return self._vocabulary.token_bytes(token_id)

    def open_adapter(self, path: Path) -> None:
        """Load a LoRA; see ``Backend.open_adapter``. Raises AdapterError, UnsupportedFeature and MissingDependency."""
        self._generator.loras.open(path)

    def decode(self, chunks: Sequence[Chunk], adapter: Adapter | None = None) -> Logits:
        """Compute new tokens; see ``Backend.decode``. Raises ValueError for chunks that break its rules."""
        return self._generator.decode(chunks, adapter)

    def copy(self, source: int, target: int, length: int) -> None:
        """Share the first tokens of a sequence. Raises ValueError where it is not possible."""
        self._generator.copy(source, target, length)

    def cut(self, sequence: int, length: int) -> None:
        """Shorten a sequence. Raises ValueError where it is not possible."""
        self._generator.cut(sequence, length)

    def free(self, sequence: int) -> None:
        """Empty a sequence."""
        self._generator.free(sequence)

    def embed(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Vectors of length 1, one per text; see ``Backend.embed``. Raises UnsupportedFeature."""
        return self._embeddings.embed(texts)

    def encode_for_embedding(self, text: str) -> list[int]:
        """Ids of a text with its special tokens; see ``Backend.encode_for_embedding``. Raises UnsupportedFeature."""
        return self._embeddings.encode(text)

    def interrupt(self) -> None:
        """Stop the running computation within some milliseconds. On a GPU or a recurrent model it runs to its end."""
        self._native.interrupt()

    def close(self) -> None:
        """Free the weights, once; waits for calls that other threads are in."""
        self._native.close()

    @property
    def _generator(self) -> Sequences:
        if self._sequences is None:
            raise UnsupportedFeature(f"{self._info.name or 'This model'} is an embedding model: it generates no text.")
        return self._sequences

    @property
    def _embeddings(self) -> Embedder:
        if self._embedder is None:
            raise UnsupportedFeature(
                f"{self._info.name or 'This model'} gives no embeddings. Load an embedding model, such as "
                "all-minilm-l6-v2."
            )
        return self._embedder
