"""Content never becomes a special token: cases where llama.cpp alone would let it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import llama_cpp.llama_cpp as lib
import pytest

from local_llms.backends import llama_cpp
from local_llms.backends.base import LoadOptions
from local_llms.backends.llama_cpp.backend import LlamaCppBackend
from tests.unit.backends.tiny_gguf import MERGED_MARKER, TYPED_MARKER


@pytest.fixture(scope="module", params=["llama", "mamba"])
def backend(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> Iterator[LlamaCppBackend]:
    """Without and with a space before every text."""
    loaded = llama_cpp.load(tiny_models[request.param], LoadOptions(threads=1))
    assert isinstance(loaded, LlamaCppBackend)
    yield loaded
    loaded.close()


@pytest.mark.parametrize("marker", [MERGED_MARKER, TYPED_MARKER])
def test_llama_cpp_alone_reads_a_typed_marker(backend: LlamaCppBackend, marker: str) -> None:
    """Although it is told not to parse special tokens: so this package has to look again."""
    ids = (lib.llama_token * 64)()
    text = marker.encode()
    count = lib.llama_tokenize(backend._native.vocab, text, len(text), ids, 64, False, False)
    assert backend.info.special_tokens[marker] in ids[:count]
    assert backend.info.special_tokens[marker] not in backend.tokenize(marker)


@pytest.mark.parametrize(
    "text",
    [
        f"a {MERGED_MARKER} b",
        f"{TYPED_MARKER}the{TYPED_MARKER}the",
        MERGED_MARKER * 3,
        f"<too{TYPED_MARKER}l>",
        f"é{MERGED_MARKER}日{TYPED_MARKER}😀",
        f"{TYPED_MARKER} the",
    ],
)
def test_a_marker_stays_text_and_what_follows_is_unchanged(backend: LlamaCppBackend, text: str) -> None:
    ids = backend.tokenize(text)
    assert not set(ids) & set(backend.info.special_tokens.values())
    assert b"".join(map(backend.token_bytes, ids)).decode() in (text, " " + text)


def test_many_markers_take_no_time(backend: LlamaCppBackend) -> None:
    started = time.thread_time()  # of the processor: other processes do not count
    ids = backend.tokenize(f"the {MERGED_MARKER}{TYPED_MARKER} " * 5_000)
    assert time.thread_time() - started < 5
    assert not set(ids) & set(backend.info.special_tokens.values())


def test_runs_of_blanks_are_ordinary_words(tiny_models: dict[str, Path]) -> None:
    """Gemma's vocabulary calls them user-defined; they are no markers."""
    backend = llama_cpp.load(tiny_models["llama"], LoadOptions(threads=1))
    assert not any(text.isspace() for text in backend.info.special_tokens)
    assert backend.tokenize("\n\n") == [260]
    assert backend.token_bytes(260) == b"\n\n"
    assert backend.token_bytes(261) == b"  "


def test_bytes_of_single_tokens(backend: LlamaCppBackend) -> None:
    assert backend.token_bytes(3 + 0x0A) == b"\n"
    assert backend.token_bytes(3 + 0xFF) == b"\xff"
    # User-defined, so it is text when the model writes it.
    assert backend.token_bytes(backend.info.special_tokens[TYPED_MARKER]) == TYPED_MARKER.encode()
    assert backend.token_bytes(backend.info.special_tokens["<s>"]) == b""
