"""Damaged GGML files: one kind of error, quickly, in little memory; and what passes harms the parent process never."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from local_llms.backends import ctransformers
from local_llms.backends.base import Chunk, LoadOptions
from local_llms.errors import DecodeError, ModelFileError, OptionError
from local_llms.hub.ggml_check import check_ggml
from tests import ggml_files

SECONDS, BYTES = 1.0, 50 << 20
KINDS = ["llama", "alpaca", "gptj"]


def write(kind: str, path: Path) -> Path:
    if kind == "gptj":
        return ggml_files.write_gptj(path)[0]
    container, version = {"llama": ("ggjt", 3), "alpaca": ("ggml", 0)}[kind]
    return ggml_files.write_tiny_llama(path, container, version)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("sound")
    return {kind: write(kind, folder / f"{kind}.bin").read_bytes() for kind in KINDS}


@pytest.fixture(autouse=True)
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
        check_ggml(path)
    except ModelFileError:
        return True
    else:
        return False
    finally:
        assert time.perf_counter() - start < SECONDS
        assert tracemalloc.get_traced_memory()[1] - before < BYTES


def first_number(kind: str) -> int:
    """Where the hyperparameters begin."""
    return 8 if kind == "llama" else 4


def damages(kind: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Files that are damaged in ways that must be noticed."""
    chooser = random.Random(kind)
    ends = {*chooser.sample(range(4, len(content) - 1), 15), 0, 3, 4, 7, 12, len(content) - 1, len(content) // 2}
    for end in sorted(ends):
        yield f"ends at {end}", content[:end]
    yield "has a byte too many", content + b"\0"
    yield "has a tensor too many", content + struct.pack("<3I", 1, 4, 0) + struct.pack("<I", 1) + b"more" + bytes(4)
    start, count = first_number(kind), 7
    for place in range(count):
        for value in (0, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 31):
            at = start + 4 * place
            yield f"number {place} is {value}", content[:at] + struct.pack("<I", value) + content[at + 4 :]
    name = b"attn.q_proj.weight" if kind == "gptj" else b"attention.wq.weight"
    place = content.index(name)
    place = content.rindex(b"transformer.h" if kind == "gptj" else b"layers.", 0, place)
    for offset, values in ((-20, (0, 3, 255, 1 << 31)), (-16, (0, 1, 64, 1 << 31)), (-12, (4, 5, 30, 99, 1 << 31))):
        for value in values:
            at = place + offset
            yield (
                f"a tensor's beginning has {value} at {offset}",
                content[:at] + struct.pack("<I", value) + content[at + 4 :],
            )
    for offset in (-8, -4):
        for value in (0, 1, 33, 1 << 31, 0xFFFFFFFF):
            at = place + offset
            yield (
                f"a tensor's shape has {value} at {offset}",
                content[:at] + struct.pack("<I", value) + content[at + 4 :],
            )
    name = b"mlp.fc_in.weight" if kind == "gptj" else b"feed_forward.w1.weight"
    at = content.rindex(b"transformer.h" if kind == "gptj" else b"layers.", 0, content.index(name)) - 8
    yield "a matrix is turned", content[:at] + content[at + 4 : at + 8] + content[at : at + 4] + content[at + 8 :]
    yield "a tensor's name is not known", content[:place] + b"L" + content[place + 1 :]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused(contents: dict[str, bytes], tmp_path: Path, kind: str) -> None:
    sound = tmp_path / "sound.bin"
    sound.write_bytes(contents[kind])
    assert not refused(sound)
    found = [(what, content) for what, content in damages(kind, contents[kind]) if content != contents[kind]]
    assert len(found) >= 70
    path = tmp_path / "damaged.bin"
    for what, content in found:
        path.write_bytes(content)
        assert refused(path), f"{kind}: {what}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_byte_is_refused_or_harmless(contents: dict[str, bytes], tmp_path: Path, kind: str) -> None:
    content = contents[kind]
    chooser = random.Random(11)
    path = tmp_path / "changed.bin"
    outcomes = []
    for _ in range(150):
        changed = bytearray(content)
        changed[chooser.randrange(4000)] ^= 1 << chooser.randrange(8)
        path.write_bytes(changed)
        outcomes.append(refused(path))
    assert any(outcomes)


def test_a_large_file_of_nothing_costs_little(tmp_path: Path) -> None:
    """A hole of 100 GB that claims a million tokens of no length."""
    path = tmp_path / "hole.bin"
    path.write_bytes(b"lmgg" + struct.pack("<7I", 1_000_000, 4096, 256, 32, 32, 128, 0))
    with path.open("r+b") as file:
        file.truncate(100 << 30)
    tracemalloc.stop()
    begin = time.perf_counter()
    with pytest.raises(ModelFileError):
        check_ggml(path)
    assert time.perf_counter() - begin < 20
    tracemalloc.start()


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    chooser = random.Random(3)
    path = tmp_path / "random.bin"
    for size in (1, 4, 24, 100, 10_000, 1_000_000):
        for start in (b"", b"lmgg", b"fmgg\1\0\0\0", b"tjgg\3\0\0\0", b"tjgg\3\0\0\0\x10\0\0\0"):
            path.write_bytes(start + chooser.randbytes(size))
            assert refused(path)


CHANGES: list[tuple[str, Callable[[random.Random], bytes]]] = [
    ("a number", lambda chooser: struct.pack("<I", chooser.choice([1, 2, 7, 31, 33, 1000, 65535]))),
    ("a byte", lambda chooser: chooser.randbytes(1)),
]


def test_what_passes_costs_no_more_than_its_process(contents: dict[str, bytes], tmp_path: Path) -> None:
    """Loaded and computed, whatever the library makes of it: typed errors, and this process lives on."""
    pytest.importorskip("ctransformers", reason="the library is absent")
    tracemalloc.stop()
    chooser = random.Random(5)
    path = tmp_path / "changed.bin"
    loaded = 0
    for number in range(60):
        kind = chooser.choice(KINDS)
        changed = bytearray(contents[kind])
        what = CHANGES[number % 2][1](chooser)
        at = first_number(kind) + 4 * chooser.randrange(7) if number % 2 == 0 else chooser.randrange(8, len(changed))
        changed[at : at + len(what)] = what
        path.write_bytes(changed)
        try:
            backend = ctransformers.load(path, LoadOptions(context_length=64, threads=1))
        except (ModelFileError, OptionError):
            # A smaller context than asked for is an OptionError.
            continue
        with closing(backend), suppress(DecodeError):
            backend.decode([Chunk(0, 0, [1, 40, 50])])
            loaded += 1
    assert loaded >= 15
    tracemalloc.start()
