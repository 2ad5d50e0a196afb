"""A decode that llama.cpp reports as failed after it has computed something."""

from __future__ import annotations

from pathlib import Path

import llama_cpp.llama_cpp as lib
import numpy as np
import pytest

from local_llms.backends import llama_cpp
from local_llms.backends.base import Chunk, LoadOptions
from local_llms.errors import CacheFull, DecodeError

TINY = LoadOptions(threads=1)


def failing(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """From now on every decode is computed, and then said to have failed."""
    decode = lib.llama_decode
    monkeypatch.setattr(lib, "llama_decode", lambda context, batch: decode(context, batch) or code)


@pytest.mark.parametrize("code", [2, -1, -3])
def test_what_it_left_in_the_cache_is_taken_out(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    backend = llama_cpp.load(tiny_models["llama"], TINY)
    expected = backend.decode([Chunk(0, 0, [300, 301, 302])]).copy()
    backend.free(0)
    backend.decode([Chunk(0, 0, [300, 301], "none")])
    with monkeypatch.context() as patch:
        failing(patch, code)
        with pytest.raises(DecodeError) as caught:
            backend.decode([Chunk(0, 2, [310, 311, 312]), Chunk(1, 0, [320])])
    assert not isinstance(caught.value, CacheFull)
    np.testing.assert_allclose(backend.decode([Chunk(0, 2, [302])]), expected, atol=1e-3)
    assert backend.decode([Chunk(1, 0, [320])]).shape[0] == 1


def test_a_recurrent_state_that_may_be_damaged_is_emptied(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = llama_cpp.load(tiny_models["mamba"], TINY)
    expected = backend.decode([Chunk(0, 0, [300, 301, 302])]).copy()
    with monkeypatch.context() as patch:
        failing(patch, -3)
        with pytest.raises(DecodeError):
            backend.decode([Chunk(0, 3, [310])])
    with pytest.raises(ValueError, match="holds 0 tokens"):
        backend.decode([Chunk(0, 3, [310])])
    np.testing.assert_allclose(backend.decode([Chunk(0, 0, [300, 301, 302])]), expected, atol=1e-3)


def test_an_embedding_that_failed(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = llama_cpp.load(tiny_models["bert"], TINY)
    ids = backend.encode_for_embedding("hello")
    expected = backend.embed([ids])
    with monkeypatch.context() as patch:
        failing(patch, -3)
        with pytest.raises(DecodeError, match="code -3"):
            backend.embed([ids])
    np.testing.assert_allclose(backend.embed([ids]), expected, atol=1e-6)
