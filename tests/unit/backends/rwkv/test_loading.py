"""Which files are RWKV's, and what loading refuses."""

from __future__ import annotations

import builtins
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from local_llms.backends import choose, rwkv
from local_llms.backends.base import Adapter, Chunk, LoadOptions
from local_llms.errors import MissingDependency, ModelFileError, OptionError, UnsupportedFeature
from tests.unit.backends.rwkv.checkpoints import make, write_ggmf, write_pth, write_safetensors

OPTIONS = LoadOptions(max_parallel=2, threads=1)


def backend_of(path: Path) -> str:
    module, reason = choose(path, None)
    assert reason
    return module.NAME


@pytest.mark.parametrize("version", ["4", "5.2", "6", "7"])
def test_weights_are_known_by_what_is_in_them(version: str, tmp_path: Path) -> None:
    tensors = make(version)
    paths = [
        write_pth(tmp_path / "a.pth", tensors),
        write_pth(tmp_path / "no-suffix", tensors),
        write_safetensors(tmp_path / "b.safetensors", tensors),
        write_ggmf(tmp_path / "c.bin", tensors),
        write_ggmf(tmp_path / "d.bin", tensors, "F16", file_version=100),
    ]
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in [*paths, tmp_path / "old.pth"]:
        assert backend_of(path) == "rwkv", path


def test_other_files_are_not_claimed(tmp_path: Path) -> None:
    llama = {"model.layers.0.self_attn.q_proj.weight": torch.ones(2, 2)}
    torch.save(llama, tmp_path / "model.pth")
    save_file(llama, tmp_path / "model.safetensors")
    (tmp_path / "old-llama.bin").write_bytes(struct.pack("<2I", 0x67676D66, 1) + bytes(100))
    (tmp_path / "text.pth").write_text("blocks.0.att.")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "header.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b'{"blocks.0.att.')
    for path in [*tmp_path.iterdir(), tmp_path, tmp_path / "missing.pth"]:
        assert rwkv.claims(path) is None, path


def test_a_folder_with_one_model(tmp_path: Path) -> None:
    write_pth(tmp_path / "RWKV-x.pth", make("7"))
    (tmp_path / "README.md").write_text("text")
    torch.save({"optimizer": torch.ones(2)}, tmp_path / "other.pth")
    assert backend_of(tmp_path) == "rwkv"
    backend = rwkv.load(tmp_path, OPTIONS)
    assert backend.info.name == "RWKV-x"
    backend.close()
    write_pth(tmp_path / "RWKV-y.pth", make("7"))
    with pytest.raises(ModelFileError, match=r"2 files of RWKV weights: RWKV-x\.pth, RWKV-y\.pth"):
        rwkv.load(tmp_path, OPTIONS)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"quantization": "int8"}, OptionError, "quantized GGUF"),
        ({"adapter": Path("lora")}, UnsupportedFeature, "no adapters"),
        ({"device": "cuda"}, OptionError, "no CUDA device"),
    ],
)
def test_options_that_cannot_be(options: dict, error: type[Exception], says: str, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    path = write_pth(tmp_path / "model.pth", make("7"))
    with pytest.raises(error, match=says):
        rwkv.load(path, replace(OPTIONS, **options))


@pytest.mark.parametrize("version", ["4", "7"])
def test_nothing_of_the_process_is_changed(version: str, tmp_path: Path) -> None:
    """The rwkv package sets variables of the environment and flags of torch when it is imported, and prints."""
    path = write_pth(tmp_path / "model.pth", make(version))
    program = f"""
import os, sys, torch
from pathlib import Path
from local_llms.backends import rwkv
from local_llms.backends.base import Chunk, LoadOptions

def seen():
    flags = torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32, torch.is_grad_enabled()
    return dict(os.environ), flags, torch.get_default_dtype(), torch._C._jit_set_profiling_mode(True)

before = seen()
backend = rwkv.load(Path({str(path)!r}), LoadOptions(threads=torch.get_num_threads()))
backend.decode([Chunk(0, 0, [1, 2, 3])])
assert seen() == before
assert "rwkv.model" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2)])
def test_the_weights_in_memory(dtype: str, size: int, tmp_path: Path) -> None:
    """Matrices in the number type asked for, the rest in float32."""
    tensors = make("7")
    backend = rwkv.load(write_pth(tmp_path / "model.pth", tensors, torch.float16), replace(OPTIONS, dtype=dtype))
    # The first layer has three that nothing is computed with.
    tensors = {
        name: tensor for name, tensor in tensors.items() if not name.startswith("blocks.0.att.v") or "value" in name
    }
    matrices = sum(tensor.numel() for name, tensor in tensors.items() if tensor.dim() == 2 and "r_k" not in name)
    rest = sum(tensor.numel() for tensor in tensors.values()) - matrices
    assert backend.info.weight_bytes == size * matrices + 4 * rest
    backend.close()


def test_adapters_are_refused(tmp_path: Path) -> None:
    backend = rwkv.load(write_pth(tmp_path / "model.pth", make("7")), OPTIONS)
    with pytest.raises(UnsupportedFeature, match="no adapters"):
        backend.open_adapter(tmp_path)
    with pytest.raises(ValueError, match="was not opened"):
        backend.decode([Chunk(0, 0, [1])], Adapter(tmp_path))
    backend.close()


def test_the_context_is_as_long_as_one_likes(tmp_path: Path) -> None:
    path = write_pth(tmp_path / "model.pth", make("7"))
    backend = rwkv.load(path, OPTIONS)
    assert backend.info.context_length >= 1_000_000
    assert backend.info.cache_tokens >= backend.info.context_length * 2
    backend.close()
    short = rwkv.load(path, replace(OPTIONS, context_length=20, cache_tokens=8))
    assert (short.info.context_length, short.info.cache_tokens) == (20, 20 * short.info.max_sequences)
    with pytest.raises(ValueError, match="more than 20 tokens"):
        short.decode([Chunk(0, 0, [1] * 21)])
    short.close()


def test_large_states_leave_fewer_prefixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pth(tmp_path / "model.pth", make("7"))
    many = rwkv.load(path, OPTIONS)
    monkeypatch.setattr("local_llms.backends.rwkv.backend.KEPT_BYTES", 1)
    few = rwkv.load(path, OPTIONS)
    assert (many.info.max_sequences, few.info.max_sequences) == (2 + 18, 2 + 4)
    many.close()
    few.close()


@pytest.mark.parametrize("library", ["torch", "safetensors"])
def test_a_missing_library(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pth(tmp_path / "model.pth", make("7"))
    find_spec = rwkv.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == library else find_spec(name))
    with pytest.raises(MissingDependency, match=r'pip install "local-llms\[rwkv\]"'):
        rwkv.load(path, OPTIONS)


def test_a_missing_library_for_quantized_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_ggmf(tmp_path / "model.bin", make("4"), "Q8_0")
    found = builtins.__import__

    def missing(name: str, *rest: object, **more: object) -> object:
        if name.startswith("gguf"):
            raise ImportError(name)
        return found(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingDependency, match=r"local-llms\[rwkv\]"):
        rwkv.load(path, OPTIONS)


def test_looking_at_a_file_imports_no_library(tmp_path: Path) -> None:
    path = write_pth(tmp_path / "model.pth", make("7"))
    code = (
        "import sys; from pathlib import Path; from local_llms.backends import choose\n"
        f"assert choose(Path({str(path)!r}), None)[0].NAME == 'rwkv'\n"
        "assert not {'torch', 'rwkv', 'safetensors', 'gguf'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr


def test_threads_are_those_that_were_asked_for(tmp_path: Path) -> None:
    path = write_pth(tmp_path / "model.pth", make("4"))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            backend = rwkv.load(path, replace(OPTIONS, threads=threads))
            backend.decode([Chunk(0, 0, [1])])
            assert torch.get_num_threads() == threads
            backend.close()
    finally:
        torch.set_num_threads(before)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.pth", tmp_path):
        with pytest.raises(ModelFileError):
            rwkv.load(path, OPTIONS)
