"""Without ``backend=`` the file decides, ``info`` says why, and a missing library gives the line that installs it."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from local_llms.about import describe
from tests import ggml_files
from tests.unit.backends import tiny_gguf

HEAVY = ["torch", "transformers", "llama_cpp", "ctransformers", "rwkv", "tokenizers", "sentencepiece", "gguf"]

BLOCKED = """
import json, sys
from importlib.abc import MetaPathFinder

blocked = set(json.loads(sys.argv[1]))

class Nothing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Nothing())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.split(".")[0] in blocked else find(name, package)

from local_llms import load_model
from local_llms.about import describe
from local_llms.errors import MissingDependency

about = describe(sys.argv[2])
try:
    load_model(sys.argv[2])
except MissingDependency as error:
    print(json.dumps([about.backend, about.backend_reason, str(error), sorted(blocked & set(sys.modules))]))
"""


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file or folder for each backend."""
    folder = tmp_path_factory.mktemp("samples")
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    config = {
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 64,
        "vocab_size": 64,
        "max_position_embeddings": 128,
    }
    (checkpoint / "config.json").write_text(json.dumps(config))
    header = json.dumps({"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    header += b" " * (-len(header) % 8)
    (checkpoint / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    rwkv = folder / "rwkv.bin"
    rwkv.write_bytes(rwkv_cpp())
    return {
        "llama_cpp": tiny_gguf.write_llama(folder / "llama.gguf"),
        "ctransformers": ggml_files.write_tiny_llama(folder / "llama.bin"),
        "transformers": checkpoint,
        "rwkv": rwkv,
    }


def rwkv_cpp() -> bytes:
    """A file of rwkv.cpp (version 101) with little in it. LLaMA's old files have its magic number too."""
    layers, width, size = 1, 32, 64
    names: dict[str, tuple[int, ...]] = {"emb.weight": (width, size), "blocks.0.ln1.weight": (width,)}
    content = b"fmgg" + struct.pack("<5I", 101, size, width, layers, 0)
    for name, shape in names.items():
        content += struct.pack("<3I", len(shape), len(name), 0) + struct.pack(f"<{len(shape)}I", *shape) + name.encode()
        content += bytes(4 * math.prod(shape))
    return content


REASONS = {
    "llama_cpp": ".gguf file",
    "ctransformers": "begins like a GGML file (ggjt v3)",
    "transformers": "folder with a config.json and weights",
    "rwkv": "file of rwkv.cpp",
}


@pytest.mark.parametrize("name", REASONS)
def test_the_file_decides_and_info_says_why(samples: dict[str, Path], name: str) -> None:
    about = describe(samples[name])
    assert about.backend == name
    assert REASONS[name] in about.backend_reason


@pytest.mark.parametrize("name", REASONS)
def test_a_missing_library_gives_the_pip_line(samples: dict[str, Path], name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, json.dumps(HEAVY), str(samples[name])],
        capture_output=True,
        text=True,
        timeout=200,
        env=dict(os.environ),
    )
    assert done.stdout, done.stderr
    backend, reason, error, imported = json.loads(done.stdout)
    assert backend == name
    assert REASONS[name] in reason
    assert f'pip install "local-llms[{name.replace("_", "-")}]"' in error
    assert not imported
