"""The ctransformers backend: its child process, what ends it, and what is refused before it starts."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from local_llms.backends import ctransformers
from local_llms.backends.base import Adapter, Chunk, LoadOptions
from local_llms.backends.ctransformers import library
from local_llms.backends.ctransformers.backend import CTransformersBackend
from local_llms.errors import (
    DecodeError,
    EngineClosed,
    MissingDependency,
    ModelFileError,
    ModelLoadError,
    OptionError,
    UnsupportedFeature,
)
from tests import ggml_files

pytest.importorskip("ctransformers", reason="the library is absent: pip install local-llms[ctransformers]")

TINY = LoadOptions(context_length=128, threads=1)
IDS = [1, 40, 50, 60, 70]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ggml_files.write_tiny_llama(tmp_path_factory.mktemp("ggml") / "tiny-llama.bin")


@pytest.fixture
def backend(model: Path) -> Iterator[CTransformersBackend]:
    loaded = ctransformers.load(model, TINY)
    assert isinstance(loaded, CTransformersBackend)
    yield loaded
    loaded.close()


def gone(pid: int, seconds: float = 30.0) -> bool:
    """Whether a process is neither running nor a zombie, soon."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def ended(backend: CTransformersBackend, seconds: float = 30.0) -> bool:
    """Whether the child has ended, soon."""
    end = time.monotonic() + seconds
    while backend._child.alive and time.monotonic() < end:
        time.sleep(0.005)
    return not backend._child.alive


def test_facts(backend: CTransformersBackend) -> None:
    info = backend.info
    assert (info.backend, info.architecture, info.name, info.quantization) == (
        "ctransformers",
        "llama",
        "tiny-llama",
        "F32",
    )
    assert (info.context_length, info.trained_context_length, info.max_running) == (128, 2048, 1)
    assert (info.bos_id, info.end_ids, info.eos_text, info.adds_bos) == (1, frozenset({2}), "</s>", True)
    assert info.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2}


def test_only_what_changed_is_computed(backend: CTransformersBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    evaluate = backend._child.evaluate

    def watched(tokens, position, **options):
        asked.append((position, len(tokens)))
        return evaluate(tokens, position, **options)

    monkeypatch.setattr(backend._child, "evaluate", watched)
    backend.decode([Chunk(0, 0, IDS)])
    backend.decode([Chunk(0, 5, [80])])
    backend.copy(0, 1, 4)
    backend.decode([Chunk(1, 4, [90, 91], "all")])
    backend.decode([Chunk(0, 6, [81])])
    assert asked == [(0, 5), (5, 1), (4, 1), (5, 1), (4, 3)]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_crash_costs_one_call(backend: CTransformersBackend, number: signal.Signals) -> None:
    expected = backend.decode([Chunk(0, 0, IDS)]).copy()
    backend.free(0)
    backend.decode([Chunk(0, 0, IDS[:4])])
    pid = backend._child.pid
    assert pid is not None
    evaluate = backend._child.evaluate

    def shot(*arguments, **options):
        os.kill(pid, number)
        backend._child.evaluate = evaluate
        return evaluate(*arguments, **options)

    backend._child.evaluate = shot  # type: ignore[method-assign]
    with pytest.raises(DecodeError, match=rf"died \({number.name}\).*Only this request is lost") as caught:
        backend.decode([Chunk(0, 4, IDS[4:])])
    assert caught.value.retryable
    assert gone(pid)
    np.testing.assert_array_equal(backend.decode([Chunk(0, 4, IDS[4:])]), expected)
    assert backend._child.starts == 2


def test_a_call_that_fails_leaves_nobody_knows_what(backend: CTransformersBackend) -> None:
    """What it may have overwritten is computed again."""
    expected = backend.decode([Chunk(0, 0, IDS)]).copy()
    backend.free(0)
    backend.decode([Chunk(0, 0, IDS[:4])])
    evaluate = backend._child.evaluate

    def failing(*arguments, **options):
        evaluate(*arguments, **options)
        raise DecodeError("the library could not compute these tokens")

    backend._child.evaluate = failing  # type: ignore[method-assign]
    with pytest.raises(DecodeError):
        backend.decode([Chunk(1, 0, [IDS[0], 90, 91, 92])])
    backend._child.evaluate = evaluate  # type: ignore[method-assign]
    np.testing.assert_array_equal(backend.decode([Chunk(0, 4, IDS[4:])]), expected)


def test_native_code_that_crashes(backend: CTransformersBackend) -> None:
    """A token far outside the vocabulary, which this backend would not send, makes the library read wild memory."""
    with pytest.raises(DecodeError, match="died"):
        backend._child.evaluate([1 << 30], 0, batch=1, threads=1, logits=True)
    assert backend.decode([Chunk(0, 0, IDS)]).shape == (1, backend.info.vocabulary_size)


def test_a_process_that_died_between_calls_is_not_noticed(backend: CTransformersBackend) -> None:
    expected = backend.decode([Chunk(0, 0, IDS)]).copy()
    backend.free(0)
    pid = backend._child.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert ended(backend)
    np.testing.assert_array_equal(backend.decode([Chunk(0, 0, IDS)]), expected)


def test_a_file_that_is_gone_when_the_process_starts_again(tmp_path: Path) -> None:
    path = ggml_files.write_tiny_llama(tmp_path / "m.bin")
    backend = ctransformers.load(path, TINY)
    assert isinstance(backend, CTransformersBackend)
    path.unlink()
    os.kill(backend._child.pid or 0, signal.SIGKILL)
    assert ended(backend)
    for _ in range(2):
        with pytest.raises(DecodeError, match="could not load"):
            backend.decode([Chunk(0, 0, IDS)])
    backend.close()


def test_close_leaves_no_process(model: Path) -> None:
    backend = ctransformers.load(model, TINY)
    assert isinstance(backend, CTransformersBackend)
    pid = backend._child.pid or 0
    backend.close()
    assert gone(pid)


def test_the_process_goes_with_the_last_reference(model: Path) -> None:
    backend = ctransformers.load(model, TINY)
    assert isinstance(backend, CTransformersBackend)
    pid = backend._child.pid or 0
    del backend
    gc.collect()
    assert gone(pid)


def test_closing_while_another_thread_computes(model: Path) -> None:
    backend = ctransformers.load(model, TINY)
    outcome: list[BaseException] = []
    started = threading.Event()

    def work() -> None:
        try:
            while True:
                backend.decode([Chunk(0, 0, IDS * 20)])
                backend.free(0)
                started.set()
        except EngineClosed as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(30)
    backend.close()
    thread.join(30)
    assert len(outcome) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_process_dies_with_its_parent(model: Path, number: signal.Signals) -> None:
    """Also while it computes."""
    program = f"""
import sys, threading
from pathlib import Path
from local_llms.backends import ctransformers
from local_llms.backends.base import Chunk, LoadOptions
backend = ctransformers.load(Path({str(model)!r}), LoadOptions(context_length=128, threads=1))
print(backend._child.pid, flush=True)
while True:
    backend.decode([Chunk(0, 0, [5] * 100)])
    backend.free(0)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.2)
    parent.send_signal(number)
    parent.wait(20)
    parent.stdout.close()
    assert gone(child)


def test_the_process_dies_with_its_parent_although_a_fork_of_it_lives(model: Path) -> None:
    """The fork holds the pipes open, so that the input does not end."""
    program = f"""
import os, sys, time
from pathlib import Path
from local_llms.backends import ctransformers
from local_llms.backends.base import LoadOptions
backend = ctransformers.load(Path({str(model)!r}), LoadOptions(context_length=128, threads=1))
fork = os.fork()
if fork == 0:
    time.sleep(60)
    os._exit(0)
print(backend._child.pid, fork, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-W", "ignore", "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child, fork = map(int, parent.stdout.readline().split())
    parent.kill()
    parent.wait(20)
    parent.stdout.close()
    try:
        assert gone(child)
    finally:
        os.kill(fork, signal.SIGKILL)


def test_ctrl_c_is_for_the_parent(backend: CTransformersBackend) -> None:
    """A terminal sends it to the group of processes that it has in front."""
    assert os.getpgid(backend._child.pid or 0) != os.getpgid(0)


def test_an_interruption_comes_between_calls_of_the_library(backend: CTransformersBackend) -> None:
    evaluate = backend._child.evaluate
    calls: list[int] = []

    def interrupting(*arguments, **options):
        calls.append(len(arguments[0]))
        backend.interrupt()
        return evaluate(*arguments, **options)

    backend._child.evaluate = interrupting  # type: ignore[method-assign]
    with pytest.raises(DecodeError, match="interrupted"):
        backend.decode([Chunk(0, 0, [5] * 100)])
    assert calls == [32]


def test_without_the_library(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ctransformers" else find(name))
    with pytest.raises(MissingDependency, match=r'pip install "local-llms\[ctransformers\]"'):
        ctransformers.load(model, TINY)


def test_another_version_of_the_library(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.2.9" if name == "ctransformers" else version(name))
    with pytest.raises(ModelLoadError, match=r"0\.2\.9 is installed, and version 0\.2\.27 is needed"):
        ctransformers.load(model, TINY)


def test_a_machine_without_a_library(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "sunos5")
    with pytest.raises(ModelLoadError, match=r"no library for this machine.*GGUF"):
        ctransformers.load(model, TINY)


@pytest.mark.parametrize(
    ("flags", "kind"),
    [("avx avx2 fma f16c", "avx2"), ("avx f16c", "avx"), ("sse sse2", "basic"), (None, "avx2")],
)
def test_the_library_suits_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, kind: str
) -> None:
    facts = tmp_path / "cpuinfo"
    if flags is not None:
        facts.write_text(f"processor : 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(library, "_CPU_FACTS", facts)
    monkeypatch.setattr(library.platform, "machine", lambda: "x86_64")
    assert library._kinds()[1] == kind


def test_a_library_that_cannot_be_loaded_says_why(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "libctransformers.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr("local_llms.backends.ctransformers.backend.find_library", lambda: broken)
    with pytest.raises(ModelLoadError, match=r"libctransformers.so.*GGUF"):
        ctransformers.load(model, TINY)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (LoadOptions(device="cuda"), "CPU only"),
        (LoadOptions(gpu_layers=4), "CPU only"),
        (LoadOptions(cache_dtype="q8_0"), "cache_dtype='q8_0'"),
        (LoadOptions(dtype="float16"), "dtype='float16'"),
        (LoadOptions(quantization="int8"), "quantization='int8'"),
        (LoadOptions(adapter=Path("lora")), "adapter='lora'"),
        (LoadOptions(context_length=200, cache_tokens=100), "cache_tokens=100"),
    ],
)
def test_options_that_are_not_possible(model: Path, options: LoadOptions, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        ctransformers.load(model, options)


def test_a_context_longer_than_the_file_has_room_for(tmp_path: Path) -> None:
    path, _ = ggml_files.write_gptj(tmp_path / "gptj.bin")
    with pytest.raises(OptionError, match="room for 128 tokens"):
        ctransformers.load(path, LoadOptions(context_length=129))


def test_adapters_and_embeddings_are_refused(backend: CTransformersBackend) -> None:
    with pytest.raises(UnsupportedFeature, match="GGUF"):
        backend.open_adapter(Path("lora"))
    with pytest.raises(ValueError, match="not opened"):
        backend.decode([Chunk(0, 0, IDS)], Adapter(Path("lora")))


def test_what_only_this_library_cannot_load(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "llama-2-70b-chat"
    folder.mkdir()
    path = folder / "small.bin"
    path.write_bytes(model.read_bytes())
    with pytest.raises(ModelFileError, match=r"70b.*Rename it"):
        ctransformers.load(path, TINY)


def test_an_alpaca_file_is_rewritten_once(tmp_path: Path) -> None:
    path = ggml_files.write_tiny_llama(tmp_path / "ggml-alpaca.bin", "ggml", 0)
    new = ggml_files.write_tiny_llama(tmp_path / "new.bin")
    rows = []
    for file in (path, path, new):
        backend = ctransformers.load(file, TINY)
        rows.append(backend.decode([Chunk(0, 0, IDS)]).copy())
        assert backend.info.name == file.stem
        backend.close()
    np.testing.assert_array_equal(rows[0], rows[2])
    np.testing.assert_array_equal(rows[1], rows[2])
    kept = list((Path(os.environ["LOCAL_LLMS_HOME"]) / "cache" / "models").glob("*/*.bin"))
    assert [file.name for file in kept] == ["ggml-alpaca-ggjt3.bin"]
