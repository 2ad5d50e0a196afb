"""Quantizing GGUF files with llama.cpp's quantizer: forms, the cache, several processes, a full or closed disk."""

from __future__ import annotations

import errno
import functools
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import pytest

from local_llms.backends import llama_cpp
from local_llms.backends.base import Chunk, LoadOptions
from local_llms.backends.llama_cpp import quantizer
from local_llms.backends.llama_cpp.quantizer import FORMS, form_of, largest_size, main_type, quantized
from local_llms.errors import DownloadError, ModelFileError, OptionError
from local_llms.hub import check_gguf
from local_llms.hub.derived import content_digest
from local_llms.quantizing import quantize
from tests.unit.backends import tiny_gguf

SMALL = {"context_length": 64, "threads": 1}


class Watching:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.total = 0
        self.seen: list[int] = []
        self.finished = 0

    def start(self, name: str, total_bytes: int) -> None:
        self.total = total_bytes

    def advance_to(self, done_bytes: int) -> None:
        self.seen.append(done_bytes)

    def finish(self) -> None:
        self.finished += 1


def kept() -> list[Path]:
    return sorted((Path(os.environ["LOCAL_LLMS_HOME"]) / "cache" / "models").glob("*/*.gguf"))


@pytest.mark.parametrize(("name", "form"), [("int8", "Q8_0"), ("int4", "Q4_0")])
def test_a_model_is_quantized_while_it_is_loaded(tiny_models: dict[str, Path], name: str, form: str) -> None:
    for _ in range(2):
        backend = llama_cpp.load(tiny_models["llama"], LoadOptions(quantization=name, **SMALL))
        assert form in backend.info.quantization
        assert 0 < backend.info.weight_bytes < 4 * backend.info.parameters
        assert backend.decode([Chunk(0, 0, [5, 6, 7])]).shape == (1, backend.info.vocabulary_size)
        backend.close()
    (file,) = kept()
    assert main_type(check_gguf(file)) == form
    assert file.name == f"llama-{form.lower()}.gguf"


def test_what_has_that_form_already_is_taken_as_it_is(tiny_models: dict[str, Path]) -> None:
    first = quantized(check_gguf(tiny_models["llama"]), "int8")
    assert quantized(first, "q8_0") is first
    assert len(kept()) == 1


def test_a_quantized_file_may_be_quantized_again_and_the_log_says_so(
    tiny_models: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    eight = quantized(check_gguf(tiny_models["llama"]), "int8")
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "local_llms"):
        four = quantized(eight, "int4")
    assert main_type(four) == "Q4_0"
    assert "quantized already (Q8_0)" in caplog.text


def test_the_content_decides_and_not_the_name(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copy(tiny_models["llama"], tmp_path / "llama.gguf")
    first = quantized(check_gguf(tiny_models["llama"]), "int8")
    assert quantized(check_gguf(copy), "int8").path == first.path
    content = bytearray(Path(copy).read_bytes())
    content[-5] ^= 1
    Path(copy).write_bytes(content)
    assert quantized(check_gguf(copy), "int8").path != first.path


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    first = content_digest(file)
    with monkeypatch.context() as patch:
        patch.setattr("local_llms.hub.derived.digest", lambda path: pytest.fail("it was hashed again"))
        assert content_digest(file) == first
    file.write_bytes(b"three")
    assert content_digest(file) != first


def test_progress_goes_to_the_end(tiny_models: dict[str, Path]) -> None:
    progress, header = Watching(), check_gguf(tiny_models["llama"])
    quantized(header, "int8", progress)
    assert progress.seen == sorted(progress.seen)
    assert progress.seen[-1] == progress.total == sum(tensor.size for tensor in header.tensors)
    assert progress.finished == 1


@pytest.mark.parametrize("form", FORMS)
def test_every_form_fits_into_what_was_thought(tiny_models: dict[str, Path], form: str) -> None:
    header = check_gguf(tiny_models["llama"])
    assert 0 < quantized(header, form).size <= largest_size(header, form)


def test_an_unknown_form_names_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"no quantization 'q4_k_n'\. Did you mean 'q4_k_"):
        form_of("q4_k_n")


def test_a_full_disk(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    header, usage = check_gguf(tiny_models["llama"]), shutil.disk_usage("/")._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(DownloadError, match=r"There is no room.*LOCAL_LLMS_HOME"):
            quantized(header, "int8")

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space")

    with monkeypatch.context() as patch:
        patch.setattr("local_llms.hub.derived.sync_file", full)
        with pytest.raises(DownloadError, match="There is no room"):
            quantized(header, "int8")
    assert not kept()
    assert quantized(check_gguf(tiny_models["llama"]), "int8").path.is_file()


def test_a_cache_that_cannot_be_written(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.write_text("a file where a folder should be")
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(closed))
    with pytest.raises(DownloadError, match="Make the folder writable, or set LOCAL_LLMS_HOME"):
        quantized(check_gguf(tiny_models["llama"]), "int8")


def test_what_llama_cpp_refuses(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMS, "q8_0", FORMS["q8_0"]._replace(number=5))  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match=r"could not store .* as Q8_0: .*exit code"):
        quantized(check_gguf(tiny_models["llama"]), "int8")
    assert not kept()


def test_a_process_that_is_killed_leaves_nothing_that_counts(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = tmp_path / "program.py"
    dying.write_text("import os, sys\nopen(sys.argv[2], 'wb').write(b'GGUF half')\nos.kill(os.getpid(), 9)\n")
    with monkeypatch.context() as patch:
        patch.setattr(quantizer, "_PROGRAM", dying)
        with pytest.raises(ModelFileError, match="exit code -9"):
            quantized(check_gguf(tiny_models["llama"]), "int8")
    assert not kept()
    assert quantized(check_gguf(tiny_models["llama"]), "int8").size


def test_several_processes_quantize_once(tiny_models: dict[str, Path]) -> None:
    program = f"""
from local_llms.backends.llama_cpp import quantizer
from local_llms.hub import check_gguf
run = quantizer._run
def counted(*arguments):
    print("made", flush=True)
    return run(*arguments)
quantizer._run = counted
print(quantizer.quantized(check_gguf({str(tiny_models["llama"])!r}), "int8").path)
"""
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=120)[0].split() for process in processes]
    assert sum(words.count("made") for words in said) == 1
    assert len({words[-1] for words in said}) == 1


def test_a_model_in_several_files_becomes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tiny_gguf.gguf, "GGUFWriter", functools.partial(gguf.GGUFWriter, split_max_tensors=8))
        tiny_gguf.write_llama(tmp_path / "big.gguf")
    first, *rest = sorted(tmp_path.glob("big-*.gguf"))
    assert rest
    header, progress = check_gguf(first), Watching()
    small = quantized(header, "int8", progress)
    assert main_type(small) == "Q8_0"
    assert small.size <= largest_size(header, "q8_0")
    assert progress.seen[-1] == progress.total
    assert llama_cpp.load(small.path, LoadOptions(**SMALL)).decode([Chunk(0, 0, [5])]).shape[0] == 1
    content = bytearray(rest[-1].read_bytes())
    content[-1] ^= 1
    rest[-1].write_bytes(content)
    assert quantized(check_gguf(first), "int8").path != small.path


def test_a_file_of_one_s_own(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "mine.gguf"
    assert quantize(str(tiny_models["llama"]), "int4", output=target) == target
    assert main_type(check_gguf(target)) == "Q4_0"
    assert os.listdir(tmp_path) == ["mine.gguf"]
    with pytest.raises(OptionError, match="exists already"):
        quantize(str(tiny_models["llama"]), "int8", output=target)
    quantize(str(tiny_models["llama"]), "int8", output=target, overwrite=True)
    assert main_type(check_gguf(target)) == "Q8_0"
    with pytest.raises(OptionError, match="stored as Q8_0 already"):
        quantize(str(target), "int8")
    with pytest.raises(OptionError, match="no folder"):
        quantize(str(target), "int4", output=tmp_path / "absent" / "x.gguf")
    (tmp_path / "other.gguf").write_bytes(b"nonsense")
    with pytest.raises(ModelFileError, match="not a GGUF file"):
        quantize(str(tmp_path / "other.gguf"), "int4")
