"""What every backend that takes adapters promises about them, as tests.

A test module subclasses ``AdapterContract`` and gives it two fixtures: ``load``, as for ``BackendContract``, and
``adapter``, the path of one that fits the model and changes what it says::

    class TestMyAdapters(AdapterContract):
        @pytest.fixture(scope="class")
        @classmethod
        def load(cls) -> Callable[[], Backend]:
            return lambda: my_backend.load(path, LoadOptions(context_length=256, cache_tokens=512))

        @pytest.fixture(scope="class")
        @classmethod
        def adapter(cls) -> Path:
            return Path("…/a-lora")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from local_llms.backends.base import Adapter, Backend, Chunk
from local_llms.errors import AdapterError
from local_llms.testing.sequence_contract import SequenceContract, SharedBackend, tokens

# ruff: noqa: S101 (these are tests)

Rows = NDArray[np.float32]


class AdapterContract(SharedBackend):
    """open_adapter, and decode with an adapter. Give it a backend of its own, since an adapter stays open."""

    tolerance: float = SequenceContract.tolerance
    """How much a logit may differ with the batch, as a part of the row's standard deviation."""

    scales: bool = True
    """Whether a scale may be other than 1; a prefix has no strength."""

    def test_an_adapter_changes_the_logits(self, backend: Backend, adapter: Path) -> None:
        """While it is named, and not before or after; opening it again does nothing."""
        base = _rows(backend, None)
        backend.open_adapter(adapter)
        backend.open_adapter(adapter)
        full = _rows(backend, Adapter(adapter))
        assert _distance(full, base) > 10 * self.tolerance, "the adapter changes nothing"
        assert _distance(_rows(backend, None), base) <= self.tolerance
        assert _distance(_rows(backend, Adapter(adapter)), full) <= self.tolerance

    def test_it_does_so_by_its_scale(self, backend: Backend, adapter: Path) -> None:
        """0 is the model alone."""
        if not self.scales:
            pytest.skip("this kind of adapter has no strength")
        backend.open_adapter(adapter)
        base, full = _rows(backend, None), _rows(backend, Adapter(adapter))
        half, none = _rows(backend, Adapter(adapter, 0.5)), _rows(backend, Adapter(adapter, 0.0))
        assert _distance(half, base) > 3 * self.tolerance
        assert _distance(half, full) > 3 * self.tolerance
        assert _distance(none, base) <= self.tolerance

    def test_sequences_with_and_without_take_turns(self, backend: Backend, adapter: Path) -> None:
        """Each is computed as if it were alone, token by token and in a batch of its own kind."""
        backend.open_adapter(adapter)
        ids = tokens(backend, 24)
        kinds: Sequence[Adapter | None] = (None, Adapter(adapter), *([Adapter(adapter, 0.5)] if self.scales else []))
        alone = [_rows(backend, kind) for kind in kinds]
        for position in range(len(ids)):
            for kind, expected in zip(kinds, alone, strict=True):
                numbers = [2 * kinds.index(kind), 2 * kinds.index(kind) + 1]
                chunks = [Chunk(number, position, ids[position : position + 1]) for number in numbers]
                rows = backend.decode(chunks, kind).copy()
                assert _distance(rows, np.stack([expected[position]] * 2)) <= self.tolerance

    def test_a_copy_keeps_what_the_adapter_made(self, backend: Backend, adapter: Path) -> None:
        """It goes on as the sequence that it was copied from would."""
        backend.open_adapter(adapter)
        kind = Adapter(adapter)
        ids = tokens(backend, 24)
        expected = _rows(backend, kind)[-1:]
        backend.decode([Chunk(0, 0, ids[:20], "none")], kind)
        backend.copy(0, 1, 20)
        backend.free(0)
        backend.decode([Chunk(0, 0, ids[:3], "none")])
        assert _distance(backend.decode([Chunk(1, 20, ids[20:])], kind), expected) <= self.tolerance

    def test_one_is_opened_while_another_thread_computes(
        self, load: Callable[[], Backend], backend: Backend, adapter: Path
    ) -> None:
        """By several threads at once, as callers do before they submit; what is computed meanwhile is as ever."""
        backend.open_adapter(adapter)
        base, full = _rows(backend, None), _rows(backend, Adapter(adapter))
        other, computed = load(), 0
        with ThreadPoolExecutor(4) as threads:
            openings = [threads.submit(other.open_adapter, adapter) for _ in range(4)]
            while computed == 0 or not all(opening.done() for opening in openings):
                assert _distance(_rows(other, None), base) <= self.tolerance
                computed += 1
            for opening in openings:
                opening.result()
        assert _distance(_rows(other, Adapter(adapter)), full) <= self.tolerance
        other.close()

    def test_an_adapter_that_was_not_opened_is_refused(self, backend: Backend, tmp_path: Path) -> None:
        """ValueError, and nothing has changed."""
        ids = tokens(backend, 24)
        base = _rows(backend, None)
        backend.decode([Chunk(0, 0, ids[:20], "none")])
        with pytest.raises(ValueError):
            backend.decode([Chunk(0, 20, ids[20:])], Adapter(tmp_path / "unknown"))
        assert _distance(backend.decode([Chunk(0, 20, ids[20:])]), base[-1:]) <= self.tolerance

    def test_what_is_no_adapter_is_refused(self, backend: Backend, adapter: Path, tmp_path: Path) -> None:
        """AdapterError for nothing, an empty folder, an empty file and noise; the model and its adapters go on."""
        backend.open_adapter(adapter)
        base, full = _rows(backend, None), _rows(backend, Adapter(adapter))
        folder, empty, noise = tmp_path / "folder", tmp_path / "empty.gguf", tmp_path / "noise.gguf"
        folder.mkdir()
        empty.write_bytes(b"")
        noise.write_bytes(b"GGUF" + bytes(range(256)) * 4)
        for wrong in (tmp_path / "missing", folder, empty, noise):
            with pytest.raises(AdapterError):
                backend.open_adapter(wrong)
            with pytest.raises(ValueError):
                backend.decode([Chunk(0, 0, tokens(backend, 3))], Adapter(wrong))
        assert _distance(_rows(backend, None), base) <= self.tolerance
        assert _distance(_rows(backend, Adapter(adapter)), full) <= self.tolerance


def _rows(backend: Backend, adapter: Adapter | None) -> Rows:
    """Logits after each token of a text, in a sequence of its own."""
    last = backend.info.max_sequences - 1
    rows = backend.decode([Chunk(last, 0, tokens(backend, 24), "all")], adapter).copy()
    backend.free(last)
    return rows


def _distance(found: Rows, expected: Rows) -> float:
    """The largest difference of two logits, in standard deviations of their row."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float((np.abs(found - expected).max(axis=1) / expected.std(axis=1)).max())
