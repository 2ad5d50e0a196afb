"""What is not installed, or is no checkpoint, says what to do; and nothing heavy is imported to find out."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from local_llms.backends import choose, transformers
from local_llms.backends.base import LoadOptions
from local_llms.errors import MissingDependency, ModelFileError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize("library", ["torch", "transformers", "tokenizers", "safetensors"])
def test_a_missing_library(folder: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == library else found(name, *rest))
    with pytest.raises(MissingDependency, match=rf"{library}: pip install \"local-llms\[transformers\]\""):
        transformers.load(folder, LoadOptions())


def test_who_reads_what(folder: Path, tmp_path: Path) -> None:
    assert choose(folder, None)[0].NAME == "transformers"
    assert transformers.claims(folder) == "it is a folder with a config.json and weights"
    assert transformers.claims(folder / "model.safetensors") == (
        "it is a folder with a config.json and weights, and model.safetensors lies in it"
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    assert transformers.claims(folder) is None
    (folder / "config.json").unlink()
    assert transformers.claims(folder) is None
    assert transformers.claims(folder / "model.safetensors") is None
    with pytest.raises(ModelFileError, match="LitGPT"):
        transformers.load(folder, LoadOptions())


def test_choosing_imports_no_library(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from local_llms.backends import choose\n"
        f"assert choose(Path({str(folder)!r}), None)[0].NAME == 'transformers'\n"
        "found = {'torch', 'transformers', 'tokenizers', 'safetensors', 'peft'} & set(sys.modules)\n"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
