"""Damaged and hostile model files: one kind of error, quickly, in little memory."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llms.errors import ModelFileError
from local_llms.hub import check_gguf

SECONDS, BYTES = 1.0, 100 << 20
MODELS = ["stories260K-Q8_0", "stories260K-F32"]


@pytest.fixture(params=MODELS)
def sound(request: pytest.FixtureRequest, data: Path) -> Path:
    """A sound model of half a megabyte."""
    return data / "models" / "stories260K" / f"{request.param}.gguf"


@pytest.fixture
def traced() -> Iterator[None]:
    """Measure memory."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


def refused(path: Path) -> bool:
    """Whether the check refuses a file: within the bounds, and with no error but ModelFileError."""
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    start = time.perf_counter()
    try:
        check_gguf(path)
    except ModelFileError:
        return True
    else:
        return False
    finally:
        assert time.perf_counter() - start < SECONDS
        assert tracemalloc.get_traced_memory()[1] - before < BYTES


@pytest.mark.usefixtures("traced")
def test_a_truncated_file_is_refused_wherever_it_ends(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()
    header = check_gguf(sound)
    chooser = random.Random(7)
    # Most of the ways to be truncated lie in the header; the last weight's padding may be missing.
    last = header.tensors[-1]
    end = header.data_offset + last.offset + last.size
    lengths = {
        *chooser.sample(range(header.data_offset), 170),
        *chooser.sample(range(header.data_offset, end), 29),
        end - 1,
    }
    path = tmp_path / "truncated.gguf"
    for length in sorted(lengths):
        path.write_bytes(content[:length])
        assert refused(path), length
    path.write_bytes(content[:end])
    assert not refused(path)


@pytest.mark.usefixtures("traced")
def test_a_changed_byte_is_refused_or_harmless(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()
    header_bytes = check_gguf(sound).data_offset
    chooser = random.Random(11)
    path = tmp_path / "changed.gguf"
    outcomes = []
    for _ in range(150):
        changed = bytearray(content)
        changed[chooser.randrange(header_bytes)] ^= 1 << chooser.randrange(8)
        path.write_bytes(changed)
        outcomes.append(refused(path))
    assert any(outcomes)


@pytest.mark.usefixtures("traced")
def test_numbers_that_claim_the_impossible_are_refused(data: Path, tmp_path: Path) -> None:
    """Every 8 bytes of the metadata in turn become a length of exabytes."""
    content = (data / "models" / "stories260K" / f"{MODELS[0]}.gguf").read_bytes()
    path = tmp_path / "changed.gguf"
    for position in range(8, 1200, 8):
        for value in (1 << 63, 1 << 32):
            changed = bytearray(content)
            changed[position : position + 8] = value.to_bytes(8, "little")
            path.write_bytes(changed)
            refused(path)


@pytest.mark.usefixtures("traced")
def test_random_bytes_are_refused(tmp_path: Path) -> None:
    chooser = random.Random(3)
    path = tmp_path / "random.gguf"
    for size in (1, 4, 24, 100, 10_000, 1_000_000):
        for start in (b"", b"GGUF", b"GGUF\x03\x00\x00\x00", b"GGUF\x03\x00\x00\x00" + b"\x01" + bytes(7)):
            path.write_bytes(start + chooser.randbytes(size))
            assert refused(path)


def test_a_large_file_of_nothing_costs_little(tmp_path: Path) -> None:
    """A hole of 100 GB that claims four million tokens of no length."""
    path = tmp_path / "hole.gguf"
    key = b"tokenizer.ggml.tokens"
    start = b"GGUF" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little") * 2 + len(key).to_bytes(8, "little") + key
    path.write_bytes(start + (9).to_bytes(4, "little") + (8).to_bytes(4, "little") + (3_999_999).to_bytes(8, "little"))
    with path.open("r+b") as file:
        file.truncate(100 << 30)
    begin = time.perf_counter()
    with pytest.raises(ModelFileError):
        check_gguf(path)
    assert time.perf_counter() - begin < 10
