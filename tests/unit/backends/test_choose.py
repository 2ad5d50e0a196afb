"""Which backend serves a file, and that adding one is adding a module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from local_llms import backends
from local_llms.errors import ModelFileError, OptionError

NEW_BACKEND = """
NAME = "paper"
READS = "sheets of paper"

def claims(path):
    return "it is a sheet" if path.suffix == ".paper" else None

def load(path, options):
    return (path, options)
"""


def test_a_gguf_file_goes_to_llama_cpp(tmp_path: Path) -> None:
    named, unnamed = tmp_path / "model.GGUF", tmp_path / "blob"
    named.write_bytes(b"whatever: loading says what is wrong with it")
    unnamed.write_bytes(b"GGUF\3\0\0\0")
    for file, why in ((named, ".gguf"), (unnamed, "begins like")):
        module, reason = backends.choose(file, None)
        assert module.NAME == "llama_cpp"
        assert why in reason


def test_the_named_backend_is_taken(tmp_path: Path) -> None:
    module, reason = backends.choose(tmp_path / "anything", "llama_cpp")
    assert (module.NAME, reason) == ("llama_cpp", "backend='llama_cpp' was given")


def test_an_unknown_backend_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"There is no backend 'lama_cpp'\. Did you mean 'llama_cpp'"):
        backends.choose(tmp_path, "lama_cpp")


def test_files_that_nobody_reads(tmp_path: Path) -> None:
    web, empty, random = tmp_path / "a.bin", tmp_path / "b.bin", tmp_path / "c.bin"
    web.write_bytes(b"<!DOCTYPE html><html>")
    empty.touch()
    random.write_bytes(bytes(range(7, 100)))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.gguf").touch()
    expected = {
        web: "web page",
        empty: "is empty",
        random: "GGUF files (llama_cpp)",
        tmp_path / "folder": str(tmp_path / "folder" / "model.gguf"),
        tmp_path / "absent.gguf": "There is no file",
    }
    for path, words in expected.items():
        with pytest.raises(ModelFileError) as caught:
            backends.choose(path, None)
        assert words in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_new_backend_is_one_new_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "paper_backend.py").write_text(NEW_BACKEND)
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    sheet = tmp_path / "one.paper"
    sheet.touch()
    try:
        module, reason = backends.choose(sheet, None)
        assert (module.NAME, reason) == ("paper", "it is a sheet")
        assert backends.choose(sheet, "paper")[0] is module
        with pytest.raises(ModelFileError, match="sheets of paper"):
            backends.choose(tmp_path / "paper_backend.py", None)
    finally:
        sys.modules.pop("local_llms.backends.paper_backend", None)


def test_choosing_imports_no_model_library(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.touch()
    code = (
        "import sys, pathlib\n"
        "from local_llms import backends\n"
        f"backends.choose(pathlib.Path({str(file)!r}), None)\n"
        "heavy = {'llama_cpp', 'torch', 'transformers', 'gguf', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says so, and is one of ours."""
    path = tmp_path / "model.bin"
    path.write_bytes(b"tjgg")
    opened = Path.open

    def closed(self: Path, *arguments: object, **options: object) -> object:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return opened(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(ModelFileError, match="cannot be read: Permission denied"):
        backends.choose(path, None)
