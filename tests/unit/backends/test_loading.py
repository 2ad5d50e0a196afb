"""Loading a GGUF file into llama.cpp: options, refusals, and what happens to its messages."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import llama_cpp.llama_cpp as lib
import pytest

from local_llms import cores
from local_llms.backends import llama_cpp
from local_llms.backends.base import Chunk, LoadOptions
from local_llms.backends.llama_cpp import native
from local_llms.errors import (
    EngineClosed,
    MissingDependency,
    ModelFileError,
    ModelLoadError,
    OptionError,
    UnsupportedFeature,
)
from tests.unit.backends import tiny_gguf

TINY = LoadOptions(threads=1)


def test_facts_of_a_loaded_model(tiny_models: dict[str, Path]) -> None:
    info = llama_cpp.load(tiny_models["llama"], TINY).info
    assert (info.backend, info.architecture, info.name, info.device) == ("llama_cpp", "llama", "tiny llama", "cpu")
    assert (info.context_length, info.trained_context_length) == (tiny_gguf.CONTEXT, tiny_gguf.CONTEXT)
    assert (info.cache_tokens, info.batch_tokens, info.quantization) == (8192, 512, "all F32")
    assert info.weight_bytes == 4 * info.parameters
    assert (info.bos_id, info.adds_bos, info.eos_text, info.end_ids) == (1, True, "</s>", {2})
    assert info.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2, tiny_gguf.TYPED_MARKER: 259}
    assert (info.embedding_size, info.can_generate, info.can_cut) == (None, True, True)
    assert info.parameters > 100_000


def test_facts_of_an_embedding_model(tiny_models: dict[str, Path]) -> None:
    info = llama_cpp.load(tiny_models["bert"], TINY).info
    assert (info.embedding_size, info.can_generate) == (tiny_gguf.WIDTH, False)
    assert info.batch_tokens >= info.context_length == tiny_gguf.CONTEXT


@pytest.mark.parametrize("max_parallel", [1, 16, 64])
@pytest.mark.parametrize("kind", ["llama", "mamba"])
def test_sequences_suffice_for_requests_and_kept_prefixes(
    tiny_models: dict[str, Path], kind: str, max_parallel: int
) -> None:
    info = llama_cpp.load(tiny_models[kind], LoadOptions(max_parallel=max_parallel, threads=1)).info
    assert info.max_sequences >= 2 * max_parallel + 16


def test_sizes_that_were_asked_for(tiny_models: dict[str, Path]) -> None:
    options = LoadOptions(context_length=100, cache_tokens=1024, cache_dtype="q8_0", threads=1)
    backend = llama_cpp.load(tiny_models["llama"], options)
    assert (backend.info.context_length, backend.info.cache_tokens) == (100, 1024)
    with pytest.raises(ValueError, match="more than 100 tokens"):
        backend.decode([Chunk(0, 0, [5] * 101)])


def test_a_cache_smaller_than_the_model_s_context(tiny_models: dict[str, Path]) -> None:
    """Even one smaller than the number of sequences, for which llama.cpp alone would end the process."""
    backend = llama_cpp.load(tiny_models["llama"], LoadOptions(cache_tokens=64, threads=1))
    info = backend.info
    assert info.context_length == 64
    assert info.batch_tokens <= info.cache_tokens
    assert backend.decode([Chunk(0, 0, [5] * 64)]).shape == (1, info.vocabulary_size)


def test_threads_are_the_cores_of_this_process(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setattr(cores, "_quota", lambda _: None)
    backend = llama_cpp.load(tiny_models["llama"], LoadOptions())
    assert lib.llama_n_threads(backend._native.context) == 3
    assert lib.llama_n_threads(llama_cpp.load(tiny_models["llama"], TINY)._native.context) == 1


@pytest.mark.parametrize(
    ("content", "allowed"), [("max 100000", None), ("200000 100000", 2), ("50000 100000", 1), ("250000 100000", 2)]
)
def test_a_container_s_limit(tmp_path: Path, content: str, allowed: int | None) -> None:
    (tmp_path / "cpu.max").write_text(content + "\n")
    assert cores._quota(tmp_path / "cpu.max") == allowed
    assert cores._quota(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("llama", LoadOptions(device="cuda"), "CUDA"),
        ("llama", LoadOptions(gpu_layers=3), "no GPU support"),
        ("llama", LoadOptions(device="cpu", gpu_layers=3), "contradicts"),
        ("llama", LoadOptions(context_length=512, cache_tokens=256), "Give cache_tokens at least 512"),
        ("bert", LoadOptions(context_length=512), "at most 256"),
    ],
)
def test_options_that_cannot_be(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, kind: str, options: LoadOptions, words: str
) -> None:
    monkeypatch.setattr(native.lib, "llama_supports_gpu_offload", lambda: False)
    with pytest.raises(OptionError, match=words):
        llama_cpp.load(tiny_models[kind], options)


def test_a_gpu_that_is_not_nvidias(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.lib, "llama_supports_gpu_offload", lambda: True)
    monkeypatch.setattr(native.lib, "llama_print_system_info", lambda: b"Metal : EMBED_LIBRARY = 1 | ")
    with pytest.raises(OptionError, match="has no CUDA"):
        llama_cpp.load(tiny_models["llama"], LoadOptions(device="cuda"))
    assert native._device(LoadOptions()) == ("gpu", -1)
    assert native._device(LoadOptions(gpu_layers=4)) == ("gpu", 4)
    assert native._device(LoadOptions(gpu_layers=0)) == ("cpu", 0)
    assert native._device(LoadOptions(device="cpu")) == ("cpu", 0)


def test_the_library_is_missing(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llama_cpp" else found(name))
    with pytest.raises(MissingDependency, match=r'pip install "local-llms\[llama-cpp\]"'):
        llama_cpp.load(tiny_models["llama"], TINY)


def test_unsound_files_never_reach_llama_cpp(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lib, "llama_model_load_from_file", lambda *_: pytest.fail("the native loader was called"))
    sound = tiny_models["llama"].read_bytes()
    for name, content in {"empty": b"", "cut": sound[:-1000], "short": sound[:100], "random": os.urandom(5000)}.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        with pytest.raises(ModelFileError):
            llama_cpp.load(path, TINY)
    with pytest.raises(ModelFileError):
        llama_cpp.load(tmp_path, TINY)


def test_what_llama_cpp_refuses_says_why(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "nonsense.gguf"
    path.write_bytes(tiny_models["mamba"].read_bytes().replace(b"\5\0\0\0\0\0\0\0mamba", b"\5\0\0\0\0\0\0\0zebra"))
    with pytest.raises(ModelLoadError, match="unknown model architecture: 'zebra'"):
        llama_cpp.load(path, TINY)


def test_a_context_that_cannot_be_made_says_why(shared_data: Path) -> None:
    path = shared_data / "models/glm-stories/glm-stories-F32.gguf"
    with pytest.raises(ModelLoadError, match=r"cache_dtype.*q8_0 with block size 32"):
        llama_cpp.load(path, LoadOptions(cache_dtype="q8_0", threads=1))


def test_a_model_that_ranks_is_refused(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    checked = llama_cpp.check_gguf

    def ranking(path: Path) -> object:
        header = checked(path)
        header.metadata["bert.pooling_type"] = lib.LLAMA_POOLING_TYPE_RANK
        return header

    monkeypatch.setattr(llama_cpp, "check_gguf", ranking)
    with pytest.raises(UnsupportedFeature, match="ranks texts"):
        llama_cpp.load(tiny_models["bert"], TINY)


def test_messages_go_to_the_logger_and_not_to_the_terminal(
    tiny_models: dict[str, Path], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, "local_llms.llama_cpp")
    backend = llama_cpp.load(tiny_models["llama"], TINY)
    backend.decode([Chunk(0, 0, [5, 6, 7])])
    backend.close()
    assert any("n_ctx" in record.message for record in caplog.records)
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert capfd.readouterr() == ("", "")


def test_a_callback_that_was_there_keeps_its_own_messages(tiny_models: dict[str, Path]) -> None:
    """Ours are not shown to it, and those of a model that somebody else loads still are."""
    done = python(
        f"""
        import llama_cpp.llama_cpp as lib
        heard = []
        callback = lib.llama_log_callback(lambda level, text, data: heard.append(text))
        lib.llama_log_set(callback, None)
        from pathlib import Path
        from local_llms.backends import llama_cpp
        from local_llms.backends.base import LoadOptions
        backend = llama_cpp.load(Path({str(tiny_models["llama"])!r}), LoadOptions(threads=1))
        ours = len(heard)
        model = lib.llama_model_load_from_file({os.fsencode(tiny_models["llama"])!r}, lib.llama_model_default_params())
        lib.llama_model_free(model)
        print(ours, len(heard) > 10)
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("0 True\n", "", 0)


def test_it_says_why_although_somebody_set_a_callback_since(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "nonsense.gguf"
    path.write_bytes(tiny_models["mamba"].read_bytes().replace(b"\5\0\0\0\0\0\0\0mamba", b"\5\0\0\0\0\0\0\0zebra"))
    done = python(
        f"""
        import llama_cpp.llama_cpp as lib
        from pathlib import Path
        from local_llms.backends import llama_cpp
        from local_llms.backends.base import LoadOptions
        from local_llms.errors import ModelLoadError
        backend = llama_cpp.load(Path({str(tiny_models["llama"])!r}), LoadOptions(threads=1))
        ours = lib.llama_log_callback()
        lib.llama_log_get(lib.ctypes.byref(ours), lib.ctypes.byref(lib.ctypes.c_void_p()))
        # One drops what it hears; the other hands it on to ours, and ours to it.
        dropping = lib.llama_log_callback(lambda level, text, data: None)
        handing_on = lib.llama_log_callback(lambda level, text, data: ours(level, text, data))
        for theirs in (dropping, handing_on):
            lib.llama_log_set(theirs, None)
            try:
                llama_cpp.load(Path({str(path)!r}), LoadOptions(threads=1))
            except ModelLoadError as error:
                print("zebra" in str(error))
        model = lib.llama_model_load_from_file({os.fsencode(tiny_models["llama"])!r}, lib.llama_model_default_params())
        lib.llama_model_free(model)
        """
    )
    assert (done.stdout, done.returncode) == ("True\nTrue\n", 0), done.stderr


def test_leaving_while_a_thread_computes(tiny_models: dict[str, Path]) -> None:
    """The interpreter ends in order: no crash, nothing said."""
    done = python(
        f"""
        import threading, time
        from pathlib import Path
        from local_llms.backends import llama_cpp
        from local_llms.backends.base import Chunk, LoadOptions
        from local_llms.errors import LocalLLMError
        backend = llama_cpp.load(Path({str(tiny_models["llama"])!r}), LoadOptions(threads=1))
        def work():
            try:
                while True:
                    backend.decode([Chunk(0, 0, [5] * 200)])
                    backend.free(0)
            except LocalLLMError:
                pass
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.2)
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_closing_while_another_thread_computes(tiny_models: dict[str, Path]) -> None:
    backend = llama_cpp.load(tiny_models["llama"], TINY)
    outcome: list[BaseException] = []
    started = threading.Event()

    def work() -> None:
        try:
            while True:
                backend.decode([Chunk(0, 0, [5] * 200)])
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


def test_the_weights_go_with_the_last_reference(tiny_models: dict[str, Path]) -> None:
    backend = llama_cpp.load(tiny_models["llama"], TINY)
    handle, watched = backend._native, weakref.ref(backend)
    del backend
    gc.collect()
    assert watched() is None
    assert handle.model is None


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own."""
    lines = code.strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    program = "\n".join(line[indent:] for line in lines)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
