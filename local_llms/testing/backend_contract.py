"""What every backend promises, as tests.

A test module of a backend subclasses ``BackendContract`` (a model that generates) or ``EmbeddingContract`` (a model
that embeds), or both, and gives it one fixture::

    class TestMyBackend(BackendContract):
        @pytest.fixture(scope="class")
        @classmethod
        def load(cls) -> Callable[[], Backend]:
            return lambda: my_backend.load(path, LoadOptions(context_length=256, cache_tokens=512))

``load`` makes a new backend each time. Keep it small: the tests fill its cache. They need a context of 128 tokens and 8
sequences. The promises themselves stand in ``local_llms/backends/base.py``.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from local_llms.backends.base import Adapter, Backend, Chunk
from local_llms.errors import AdapterError, EngineClosed, EngineForked, LocalLLMError, UnsupportedFeature
from local_llms.testing.sequence_contract import SequenceContract, SharedBackend
from local_llms.testing.vocabulary_contract import VocabularyContract

# ruff: noqa: S101 (these are tests)


class LifetimeContract:
    """How a backend ends, and who may use it meanwhile."""

    def test_after_close_everything_is_refused(self, load: Callable[[], Backend]) -> None:
        """Each call raises EngineClosed, and closing twice does nothing."""
        backend = load()
        backend.close()
        backend.close()
        for name, call in _calls(backend).items():
            with pytest.raises(EngineClosed):
                pytest.fail(f"{name} after close gave {call()!r}")

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
    def test_in_a_forked_child_everything_is_refused(self, load: Callable[[], Backend]) -> None:
        """Each call in the child raises EngineForked; closing there harms nobody; the parent goes on."""
        backend = load()
        said = _in_a_fork(lambda: _outcomes(backend))
        expected = ", ".join(f"{name}: EngineForked" for name in _calls(backend)) + ", close: ok"
        assert said == expected, said
        assert backend.tokenize("still here")
        backend.close()

    def test_tokenizing_in_threads_while_computing(self, backend: Backend) -> None:
        """``tokenize`` and ``token_bytes`` from four threads disturb neither each other nor a decode."""
        expected = backend.tokenize("Tokenize this, please: 1, 2, 3.")
        wrong: list[object] = []
        stop = threading.Event()

        def tokenize() -> None:
            try:
                while not stop.is_set():
                    ids = backend.tokenize("Tokenize this, please: 1, 2, 3.")
                    if ids != expected or not all(isinstance(backend.token_bytes(token), bytes) for token in ids):
                        wrong.append(ids)
                    time.sleep(0.001)
            except LocalLLMError as error:
                wrong.append(error)

        threads = [threading.Thread(target=tokenize) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for step in range(20):
                self._compute(backend, step, expected)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not wrong, wrong[:3]

    @staticmethod
    def _compute(backend: Backend, step: int, ids: list[int]) -> None:
        if backend.info.can_generate:
            backend.decode([Chunk(0, step, ids[step % len(ids) :][:1])])
        else:
            backend.embed([ids])


class BackendContract(SharedBackend, SequenceContract, VocabularyContract, LifetimeContract):
    """Everything that a backend promises for a model that generates."""

    def test_an_adapter_that_is_not_there_is_refused(self, backend: Backend, tmp_path: Path) -> None:
        """By AdapterError, or UnsupportedFeature where the model takes none; computing with it is a mistake."""
        adapter = Adapter(tmp_path / "missing")
        with pytest.raises((AdapterError, UnsupportedFeature)):
            backend.open_adapter(adapter.path)
        with pytest.raises((ValueError, UnsupportedFeature)):
            backend.decode([Chunk(0, 0, [5])], adapter)
        assert backend.decode([Chunk(0, 0, [5])]).shape == (1, backend.info.vocabulary_size)

    def test_embedding_is_refused_where_the_info_says_so(self, backend: Backend) -> None:
        """Without an embedding size, both calls raise UnsupportedFeature."""
        if backend.info.embedding_size is not None:
            pytest.skip("this model embeds")
        with pytest.raises(UnsupportedFeature):
            backend.embed([[1]])
        with pytest.raises(UnsupportedFeature):
            backend.encode_for_embedding("text")


class EmbeddingContract(SharedBackend, VocabularyContract, LifetimeContract):
    """Everything that a backend promises for a model that embeds."""

    round_trips = False

    tolerance: float = 1e-3
    """How much a number in a vector may differ with the batch."""

    texts: tuple[str, ...] = ("A cat.", "", "The dog sleeps all day long, and the cat does too.", "one two three")

    def test_a_vector_does_not_depend_on_its_batch(self, backend: Backend) -> None:
        """Each text alone, all together, and in reverse order give the same vectors."""
        texts = [backend.encode_for_embedding(text) for text in self.texts]
        alone = np.concatenate([backend.embed([ids]) for ids in texts])
        many = texts * (backend.info.max_sequences // len(texts) + 1)
        together, reverse = backend.embed(many), backend.embed(many[::-1])
        assert together.shape == (len(many), backend.info.embedding_size)
        np.testing.assert_allclose(together, np.tile(alone, (len(many) // len(texts), 1)), atol=self.tolerance)
        np.testing.assert_allclose(reverse[::-1], together, atol=self.tolerance)

    def test_more_texts_than_sequences(self, backend: Backend) -> None:
        """However short they are."""
        ids = backend.encode_for_embedding("a")
        vectors = backend.embed([ids] * (backend.info.max_sequences + 3))
        assert vectors.shape[0] == backend.info.max_sequences + 3
        np.testing.assert_allclose(vectors, np.broadcast_to(vectors[0], vectors.shape), atol=self.tolerance)

    def test_vectors_have_length_one(self, backend: Backend) -> None:
        """So that a dot product is a cosine."""
        vectors = backend.embed([backend.encode_for_embedding(text) for text in self.texts])
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    def test_texts_differ(self, backend: Backend) -> None:
        """Two texts do not get one vector."""
        vectors: NDArray[np.float32] = backend.embed([backend.encode_for_embedding(text) for text in self.texts])
        cosines = vectors @ vectors.T
        assert (cosines - np.eye(len(self.texts)) < 0.9999).all(), cosines

    def test_no_text_no_vector(self, backend: Backend) -> None:
        """An empty list gives an array without rows."""
        assert backend.embed([]).shape == (0, backend.info.embedding_size)

    def test_a_long_text_is_cut_to_the_context(self, backend: Backend) -> None:
        """The special tokens at the end stay."""
        short = backend.encode_for_embedding("a cat")
        long = backend.encode_for_embedding("a cat " * backend.info.context_length)
        assert len(long) == backend.info.context_length
        specials = set(backend.info.special_tokens.values())
        if short[-1] in specials:
            assert long[-1] == short[-1]
        assert backend.embed([long, long]).shape[0] == 2

    def test_wrong_ids_are_refused(self, backend: Backend) -> None:
        """ValueError for a token that does not exist, for a text without tokens and for one that is too long."""
        for wrong in ([-1], [backend.info.vocabulary_size], [], [5] * (backend.info.context_length + 1)):
            with pytest.raises(ValueError):
                backend.embed([[5], wrong])
        assert backend.embed([[5]]).shape[0] == 1

    def test_generating_is_refused_where_the_info_says_so(self, backend: Backend) -> None:
        """UnsupportedFeature where ``can_generate`` is false."""
        if backend.info.can_generate:
            pytest.skip("this model generates")
        with pytest.raises(UnsupportedFeature):
            backend.decode([Chunk(0, 0, [5])])


def _calls(backend: Backend) -> dict[str, Callable[[], object]]:
    """One call of every method but ``close`` and ``interrupt``."""
    calls: dict[str, Callable[[], object]] = {
        "tokenize": lambda: backend.tokenize("text"),
        "token_bytes": lambda: backend.token_bytes(5),
    }
    if backend.info.can_generate:
        calls |= {
            "open_adapter": lambda: backend.open_adapter(Path("no adapter")),
            "decode": lambda: backend.decode([Chunk(0, 0, [5])]),
            "copy": lambda: backend.copy(0, 1, 1),
            "cut": lambda: backend.cut(0, 0),
            "free": lambda: backend.free(0),
        }
    if backend.info.embedding_size is not None:
        calls |= {
            "embed": lambda: backend.embed([[5]]),
            "encode_for_embedding": lambda: backend.encode_for_embedding("text"),
        }
    return calls


def _outcomes(backend: Backend) -> str:
    """For each call, the error that it raises."""
    said = []
    for name, call in {**_calls(backend), "close": backend.close}.items():
        try:
            call()
            said.append(f"{name}: ok")
        except EngineForked:
            said.append(f"{name}: EngineForked")
        except LocalLLMError as error:
            said.append(f"{name}: {error!r}")
    return ", ".join(said)


def _in_a_fork(work: Callable[[], str]) -> str:
    """What ``work`` returns in a forked child, or how the child ended."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of forking with threads about, which is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os.write(writing, work().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return said or f"the child ended with status {status}"
