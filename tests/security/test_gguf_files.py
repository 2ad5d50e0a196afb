"""Damaged and hostile model files: one kind of error, quickly, in little memory."""

from __future__ import annotations

import random
import subprocess
import sys
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


LOAD = """
import ctypes, sys
import llama_cpp
quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(quiet, ctypes.c_void_p())
text = "Once upon a time, \u00e9\U0001f600 </s>".encode()
for path in sys.argv[1:]:
    print(path, flush=True)
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    if not model:
        continue
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx, parameters.n_batch, parameters.n_threads, parameters.n_threads_batch = 64, 64, 1, 1
    context = llama_cpp.llama_init_from_model(model, parameters)
    if context:
        tokens = (llama_cpp.llama_token * 64)()
        vocabulary = llama_cpp.llama_model_get_vocab(model)
        count = llama_cpp.llama_tokenize(vocabulary, text, len(text), tokens, 64, True, False)
        if count > 0:
            llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, count))
        llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
print("alive", flush=True)
"""


def test_what_passes_does_not_kill_llama_cpp(data: Path, tmp_path: Path) -> None:
    """It may be refused there, but the process lives on. Bytes of the metadata are changed, before the vocabulary."""
    content = (data / "models" / "stories260K" / f"{MODELS[0]}.gguf").read_bytes()
    vocabulary = content.index(b"tokenizer.ggml.tokens")
    numbers = [content.index(key) + len(key) + 4 for key in (b"block_count", b"rms_epsilon", b"dimension_count")]
    chooser = random.Random(5)
    changes = [(chooser.randrange(24, vocabulary), chooser.randbytes(1)) for _ in range(80)]
    changes += [
        (place, value.to_bytes(4, "little")) for place in numbers for value in (0, 1, 513, 0x7FFFFFFF, 0xFFFFFFFF)
    ]
    passed = []
    for number, (place, value) in enumerate(changes):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(content[:place] + value + content[place + len(value) :])
        try:
            check_gguf(path)
        except ModelFileError:
            continue
        passed.append(str(path))
    assert len(passed) > 20
    done = subprocess.run([sys.executable, "-c", LOAD, *passed], stdout=subprocess.PIPE, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "alive", done.returncode
