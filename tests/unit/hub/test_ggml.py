"""GGML files of 2023: which kind they are, what is refused, and rewriting the oldest ones."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from local_llms.errors import ModelFileError
from local_llms.hub.ggml import probe, read_ggml
from local_llms.hub.ggml_check import check_ggml
from local_llms.hub.ggml_upgrade import needs_upgrade, upgrade
from tests import ggml_files


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return ggml_files.write_tiny_llama(tmp_path / "llama.bin")


@pytest.fixture
def gptj(tmp_path: Path) -> Path:
    return ggml_files.write_gptj(tmp_path / "gptj.bin")[0]


def write_neox(path: Path, layers: int = 1) -> Path:
    """GPT-NeoX with zeros for weights, and a vocabulary of as many tokens as its numbers could be taken for LLaMA's."""
    width, size = 32, 64
    shapes: dict[str, tuple[int, ...]] = {
        "gpt_neox.embed_in.weight": (size, width),
        "gpt_neox.final_layer_norm.weight": (width,),
        "gpt_neox.final_layer_norm.bias": (width,),
        "embed_out.weight": (size, width),
    }
    for layer in range(layers):
        block = f"gpt_neox.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes |= {f"{block}{name}.weight": (width,), f"{block}{name}.bias": (width,)}
        for name, rows, columns in (
            ("attention.query_key_value", 3 * width, width),
            ("attention.dense", width, width),
            ("mlp.dense_h_to_4h", 4 * width, width),
            ("mlp.dense_4h_to_h", width, 4 * width),
        ):
            shapes |= {f"{block}{name}.weight": (rows, columns), f"{block}{name}.bias": (rows,)}
    vocabulary = [bytes([byte]) for byte in range(size)]
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return ggml_files.write(path, "ggml", 0, (size, 128, width, 2, layers, 4, 1, 0), vocabulary, None, tensors)


@pytest.mark.parametrize(
    ("container", "version", "label"),
    [
        ("ggml", 0, "ggml"),
        ("ggmf", 1, "ggmf v1"),
        ("ggjt", 1, "ggjt v1"),
        ("ggjt", 2, "ggjt v2"),
        ("ggjt", 3, "ggjt v3"),
    ],
)
def test_each_format_of_llama(tmp_path: Path, container: str, version: int, label: str) -> None:
    path = ggml_files.write_tiny_llama(tmp_path / "m.bin", container, version)
    header = check_ggml(path)
    assert (header.kind, header.label) == ("llama", label)
    assert header.numbers["layers"] == 2
    assert bool(header.scores) == (container != "ggml")
    assert header.vocabulary[3 + ord("x")] == b"x"
    assert header.parameters == sum(np.prod(tensor.shape) for tensor in header.tensors)
    last = header.tensors[-1]
    assert last.offset + last.size == path.stat().st_size
    assert probe(path.read_bytes()[:8]) == label


def test_kinds_that_share_a_magic_number_are_told_apart(tmp_path: Path, gptj: Path) -> None:
    assert check_ggml(gptj).kind == "gptj"
    assert check_ggml(write_neox(tmp_path / "neox.bin")).kind == "gptneox"
    assert check_ggml(ggml_files.write_tiny_llama(tmp_path / "llama.bin", "ggml", 0)).kind == "llama"


def test_files_of_rwkv_cpp_are_others(tmp_path: Path) -> None:
    path = tmp_path / "rwkv.bin"
    for version in (100, 101):
        path.write_bytes(b"fmgg" + struct.pack("<7I", version, 256, 64, 12, 0, 0, 0) + bytes(1000))
        assert probe(path.read_bytes()[:8]) is None
        with pytest.raises(ModelFileError, match=r"rwkv\.cpp.*backend=\"rwkv\""):
            read_ggml(path)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"GGUF" + bytes(100), "not a GGML file"),
        (b"<!doctype html>", "web page"),
        (b"tjgg" + struct.pack("<I", 4) + bytes(100), "version 4"),
        (b"tjgg" + struct.pack("<8I", 3, 0, 1, 1, 1, 1, 1, 1), "claims 0 tokens"),
        (b"tjgg" + struct.pack("<8I", 3, 1 << 31, 1, 1, 1, 1, 1, 1), "claims 2147483648 tokens"),
        (b"tjg", "not a GGML file"),
        (b"", "is empty"),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, start: bytes, words: str) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(start)
    with pytest.raises(ModelFileError, match=words):
        check_ggml(path)


def test_another_kind_of_model(tmp_path: Path) -> None:
    """GPT-2's tensors have names of their own."""
    path = tmp_path / "gpt2.bin"
    tensors = {"model/wte": np.zeros((4, 8), np.float32)}
    ggml_files.write(path, "ggml", 0, (4, 16, 8, 2, 1, 4, 0), [b"a", b"b", b"c", b"d"], None, tensors)
    with pytest.raises(ModelFileError, match=r"no model of the kinds llama, gptneox .* and gptj.*another kind"):
        check_ggml(path)


def numbers_of(path: Path, change: Callable[[list[int]], object], skip: int = 8, count: int = 7) -> None:
    content = bytearray(path.read_bytes())
    numbers = list(struct.unpack_from(f"<{count}I", content, skip))
    change(numbers)
    struct.pack_into(f"<{count}I", content, skip, *numbers)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (1, 33, "heads cannot share"),
        (1, 0, "width is 0"),
        (2, 0, "multiple is 0"),
        (3, 0, "heads is 0"),
        (4, 0, "layers is 0"),
        (4, 600, "layers is 600"),
        (4, 3, "missing"),
        (4, 1, "which no llama model has"),
        (5, 8, "rotated"),
        (6, 30, "file type 30"),
    ],
)
def test_impossible_numbers(llama: Path, place: int, value: int, words: str) -> None:
    numbers_of(llama, lambda numbers: numbers.__setitem__(place, value))
    with pytest.raises(ModelFileError, match=words):
        check_ggml(llama)


def test_a_tensor_that_comes_twice_or_is_stored_otherwise(llama: Path) -> None:
    content = llama.read_bytes()
    llama.write_bytes(content.replace(b"layers.1.attention.wq.weight", b"layers.1.attention.wk.weight", 1))
    with pytest.raises(ModelFileError, match="comes twice"):
        check_ggml(llama)
    place = content.index(b"norm.weight") - 8
    assert content[place : place + 4] == struct.pack("<I", 0)
    llama.write_bytes(content[:place] + struct.pack("<I", 30) + content[place + 4 :])
    with pytest.raises(ModelFileError, match="tensor"):
        check_ggml(llama)


def alpaca_blocks(data: np.ndarray) -> tuple[int, bytes]:
    """As alpaca.cpp stored 32 weights: a scale in single precision, and neighbours in one byte."""
    blocks = data.reshape(-1, 32)
    scale = (np.abs(blocks).max(axis=1) / 7).astype("<f4")
    numbers = (np.round(blocks / scale[:, None]) + 8).astype(np.uint8)
    packed = numbers[:, 0::2] | numbers[:, 1::2] << 4
    return ggml_files.Q4_0, np.concatenate([scale.view(np.uint8).reshape(-1, 4), packed], axis=1).tobytes()


def test_an_alpaca_file_becomes_one_of_the_last_form(tmp_path: Path) -> None:
    data = np.random.default_rng(1).normal(0, 1, (4, 64)).astype(np.float32)
    vocabulary = [ggml_files.UNKNOWN_TEXT, b"", b"", b"a", b"b"]
    old = tmp_path / "old.bin"
    ggml_files.write(
        old, "ggml", 0, (5, 64, 1, 2, 1, 32, 2), vocabulary, None, {"output.weight": data}, store=alpaca_blocks
    )
    header = read_ggml(old)
    assert header.quantization_version == 0
    assert header.tensors[0].size == 8 * 20
    assert needs_upgrade(header)
    upgrade(header, tmp_path / "new.bin")
    new = read_ggml(tmp_path / "new.bin")
    assert (new.label, new.quantization_version, needs_upgrade(new)) == ("ggjt v3", 2, False)
    assert new.vocabulary == header.vocabulary
    assert new.scores == (0.0, -1.0, -2.0, -3.0, -4.0)
    tensor = new.tensors[0]
    assert tensor.offset % 32 == 0
    assert tensor.size == 8 * 18
    blocks = np.frombuffer((tmp_path / "new.bin").read_bytes()[tensor.offset :], np.uint8).reshape(8, 18)
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    numbers = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32)
    steps = np.abs(data.reshape(8, 32)).max(axis=1, keepdims=True) / 7
    assert (np.abs((numbers - 8) * scales - data.reshape(8, 32)) < 0.51 * steps).all()


def test_a_file_of_the_last_form_needs_nothing(llama: Path, gptj: Path) -> None:
    assert not needs_upgrade(check_ggml(llama))
    assert not needs_upgrade(check_ggml(gptj))


def test_forms_that_nobody_can_read(tmp_path: Path, llama: Path) -> None:
    header = check_ggml(llama)
    for kind, container in (("Q4_1", "ggmf"), ("Q5_0", "ggjt")):
        first = header.tensors[0]
        old = replace(
            header,
            container=container,
            version=1,
            quantization_version=0,
            tensors=(replace(first, type=first.type._replace(name=kind)),),
        )
        assert needs_upgrade(old)
        with pytest.raises(ModelFileError, match=f"{kind}.*GGUF"):
            upgrade(old, tmp_path / "new.bin")
