"""The header of a GGUF file is read as it is; whatever is wrong in it is named, before memory is taken for it."""

from __future__ import annotations

import os
import re
import struct
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest

from local_llms.errors import ModelFileError
from local_llms.hub import GGUFArray, read_header
from local_llms.hub.gguf_types import REMOVED_TENSOR_TYPES, TENSOR_TYPES, VALUE_TYPES
from tests.unit.hub.raw_gguf import ARRAY, BOOL, F32, STRING, U8, U32, U64, Raw, Tensor, array, text


def refused(path: Path) -> str:
    """The error's text; it names the file."""
    with pytest.raises(ModelFileError) as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_sound_file(tmp_path: Path) -> None:
    raw = Raw()
    header = read_header(raw.save(tmp_path))
    assert (header.version, header.architecture, header.alignment) == (3, "llama", 32)
    assert header.metadata["llama.block_count"] == 1
    assert header.metadata["tokenizer.ggml.tokens"].count == 3
    assert header.strings("tokenizer.ggml.tokens") == ["a", "b", ""]
    assert header.numbers("tokenizer.ggml.token_type").tolist() == [1, 1, 3]
    assert header.strings("nothing") == []
    assert header.numbers("nothing").size == 0
    assert [(tensor.name, tensor.shape, tensor.size) for tensor in header.tensors] == [
        ("a", (4, 3), 48),
        ("b", (32,), 34),
    ]
    assert header.parameters == 12 + 32
    assert header.size == header.data_offset + len(raw.data)


def test_version_2_is_read_too(tmp_path: Path) -> None:
    assert read_header(Raw(version=2).save(tmp_path)).version == 2


@pytest.mark.parametrize("kind", sorted(VALUE_TYPES))
def test_every_type_of_value(tmp_path: Path, kind: int) -> None:
    name, letter = VALUE_TYPES[kind]
    raw = Raw()
    raw.keys["one"] = (kind, struct.pack("<" + letter, 1))
    raw.keys["many"] = (ARRAY, struct.pack("<IQ", kind, 3) + struct.pack(f"<3{letter}", 1, 0, 1))
    header = read_header(raw.save(tmp_path))
    assert header.metadata["one"] == 1
    assert header.metadata["many"] == GGUFArray(name, 3, header.metadata["many"].offset)
    assert header.numbers("many").tolist() == [1, 0, 1]
    assert header.numbers("many").dtype == np.dtype(name)


def test_it_reads_what_the_gguf_library_writes(tmp_path: Path) -> None:
    path = tmp_path / "written.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    writer.add_name("höhe")
    writer.add_token_list(["a", "é", "日本"])
    writer.add_token_scores([0.5, 1.5, -2.0])
    writer.add_tensor("odd", np.arange(3, dtype=np.float32))
    writer.add_tensor("half", np.ones((2, 5), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(path)
    assert (header.alignment, header.metadata["general.name"]) == (64, "höhe")
    assert header.strings("tokenizer.ggml.tokens") == ["a", "é", "日本"]
    assert header.numbers("tokenizer.ggml.scores").tolist() == [0.5, 1.5, -2.0]
    assert [(tensor.name, tensor.shape, tensor.type.name) for tensor in header.tensors] == [
        ("odd", (3,), "F32"),
        ("half", (5, 2), "F16"),
    ]
    stored = path.read_bytes()[header.data_offset + header.tensors[1].offset :][: header.tensors[1].size]
    assert np.frombuffer(stored, np.float16).tolist() == [1.0] * 10


def test_the_types_of_weights_are_ggmls() -> None:
    ours = {number: (kind.name, kind.block, kind.size) for number, kind in TENSOR_TYPES.items()}
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {number: kind for number, kind in ours.items() if number in theirs} == theirs
    assert not set(TENSOR_TYPES) & set(REMOVED_TENSOR_TYPES)


def test_a_long_vocabulary_is_skipped_until_it_is_asked_for(tmp_path: Path) -> None:
    tokens = [f"token{number}" * 20 for number in range(49_152)]
    raw = Raw()
    raw.keys["tokenizer.ggml.tokens"] = (ARRAY, array(STRING, tokens))
    path = raw.save(tmp_path)
    tracemalloc.start()
    header = read_header(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 << 20 < path.stat().st_size
    assert header.strings("tokenizer.ggml.tokens") == tokens


def test_bytes_that_are_no_text_are_kept(tmp_path: Path) -> None:
    raw = Raw()
    raw.keys["tokenizer.ggml.tokens"] = (ARRAY, array(STRING, [b"\xff", b"\xe9\x00", b""]))
    header = read_header(raw.save(tmp_path))
    assert header.raw_strings("tokenizer.ggml.tokens") == [b"\xff", b"\xe9\x00", b""]
    assert header.strings("tokenizer.ggml.tokens") == ["\ufffd", "\ufffd\x00", ""]


def test_an_array_of_the_wrong_kind_is_named(tmp_path: Path) -> None:
    header = read_header(Raw().save(tmp_path))
    with pytest.raises(ModelFileError, match=r"tokens holds strings instead of numbers"):
        header.numbers("tokenizer.ggml.tokens")
    with pytest.raises(ModelFileError, match=r"scores holds float32 values instead of strings"):
        header.strings("tokenizer.ggml.scores")
    with pytest.raises(ModelFileError, match=r"block_count is a single value"):
        header.numbers("llama.block_count")


HUGE = 1 << 62
KEY = "made.up"
WRONG = [
    (Raw(version=1), r"version 1 of the format.*no longer reads"),
    (Raw(version=4), r"version 4 of the format; 2 and 3 are known"),
    (Raw(version=0), r"version 0"),
    (Raw(version=0x03000000), r"big-endian"),
    (Raw(key_count=HUGE), r"claims 4611686018427387904 metadata keys"),
    (Raw(key_count=50), r"a metadata key would have"),
    (Raw(tensor_count=HUGE), r"claims 4611686018427387904 tensors"),
    (
        Raw(extra_keys=text("general.architecture") + struct.pack("<I", STRING) + text("x"), key_count=11),
        r"comes twice",
    ),
    (Raw(extra_keys=text("") + struct.pack("<I", STRING) + text("x"), key_count=11), r"key is empty"),
    (Raw(extra_keys=struct.pack("<Q", HUGE), key_count=11), r"a metadata key would have"),
    (Raw(extra_keys=text(KEY) + struct.pack("<I", 13), key_count=11), r"made\.up has the unknown type 13"),
    (Raw(extra_keys=text(KEY) + struct.pack("<IQ", STRING, 1 << 40), key_count=11), r"made\.up would have"),
    (Raw(extra_keys=text(KEY) + struct.pack("<IQ", STRING, 5000), key_count=11), r"needs 5000 bytes, and \d+ are left"),
    (
        Raw(extra_keys=text(KEY) + struct.pack("<I", ARRAY) + array(ARRAY, []), key_count=11),
        r"array of the unknown type 9",
    ),
    (
        Raw(extra_keys=text(KEY) + struct.pack("<I", ARRAY) + array(13, []), key_count=11),
        r"array of the unknown type 13",
    ),
    (
        Raw(extra_keys=text(KEY) + struct.pack("<I", ARRAY) + array(U8, [], HUGE), key_count=11),
        r"more than the 4000000",
    ),
    (
        Raw(extra_keys=text(KEY) + struct.pack("<I", ARRAY) + array(U64, [], 3_999_999), key_count=11),
        r"needs 31999992 bytes",
    ),
    (
        Raw(extra_keys=text(KEY) + struct.pack("<I", ARRAY) + array(STRING, [], HUGE), key_count=11),
        r"more than the 4000000",
    ),
    (Raw(extra_keys=text(KEY) + struct.pack("<I", ARRAY) + array(STRING, [], 3_999_999), key_count=11), r"made\.up"),
    (
        Raw(extra_keys=text("general.alignment") + struct.pack("<II", U32, 24), key_count=11),
        r"24 instead of a power of two",
    ),
    (
        Raw(extra_keys=text("general.alignment") + struct.pack("<II", U32, 0), key_count=11),
        r"0 instead of a power of two",
    ),
    (
        Raw(extra_keys=text("general.alignment") + struct.pack("<I?", BOOL, True), key_count=11),
        r"True instead of a power",
    ),
    (
        Raw(extra_keys=text("general.alignment") + struct.pack("<If", F32, 32.0), key_count=11),
        r"32\.0 instead of a power",
    ),
    (Raw(tensors=[Tensor("x" * 64, (4,))]), r"a tensor's name would have 64 bytes"),
    (Raw(tensors=[Tensor("x", (1, 1, 1, 1, 1))]), r"x has 5 dimensions"),
    (Raw(tensors=[Tensor("x", (4,), dimensions=1 << 31)]), r"dimensions"),
    (Raw(tensors=[Tensor("x", (4,), kind=4)]), r"Q4_2, which llama\.cpp has removed"),
    (Raw(tensors=[Tensor("x", (4,), kind=99)]), r"x has the unknown type 99"),
    (Raw(tensors=[Tensor("x", (4,), offset=7)]), r"x begins at 7, which is no multiple of 32"),
]


@pytest.mark.parametrize(("raw", "what"), WRONG, ids=[what for _, what in WRONG])
def test_what_is_wrong_is_named(tmp_path: Path, raw: Raw, what: str) -> None:
    message = refused(raw.save(tmp_path))
    assert re.search(what, message), message


def test_texts_are_bounded_together(tmp_path: Path) -> None:
    raw = Raw()
    for number in range(5):
        raw.keys[f"long.{number}"] = (STRING, text(b"x" * (15 << 20)))
    assert "texts have more than" in refused(raw.save(tmp_path))


STARTS = [
    (b"<!DOCTYPE html><html>", "web page"),
    (b"\n  <html lang='en'>", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "git lfs pull"),
    (b"lmgg" + bytes(60), "GGML"),
    (b"fmgg" + bytes(60), "GGML"),
    (b"tjgg" + bytes(60), "GGML"),
    (b"FUGG" + bytes(60), "big-endian"),
    (b"PK\x03\x04" + bytes(60), "zip archive"),
    (b"\x80\x02}q\x00", "pickle"),
    (b"\x1f\x8b\x08", "unpack it"),
    (struct.pack("<Q", 900) + b'{"a":{"dtype":"F32"', "safetensors"),
    (b'{"error": "not found"}', "JSON"),
    (b"\x01\x02\x03\x04random", "begins with these four letters"),
    (b"GG", "begins with these four letters"),
    (b"GGUF", "the version needs 4 bytes, and 0 are left"),
]


@pytest.mark.parametrize(("start", "hint"), STARTS, ids=[hint for _, hint in STARTS])
def test_another_kind_of_file_is_recognized(tmp_path: Path, start: bytes, hint: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(start)
    assert hint in refused(path)


def test_no_file(tmp_path: Path) -> None:
    assert "There is no file" in refused(tmp_path / "missing.gguf")
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_header("nul\0byte.gguf")


def test_a_folder_names_what_lies_in_it(tmp_path: Path) -> None:
    assert "it has none" in refused(tmp_path)
    path = Raw().save(tmp_path)
    assert f"such as {path}" in refused(tmp_path)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    path.touch()
    assert "is empty" in refused(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "no ordinary file" in refused(tmp_path / "pipe")


def test_a_file_that_shrinks_meanwhile(tmp_path: Path) -> None:
    path = Raw().save(tmp_path)
    header = read_header(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelFileError, match="became shorter"):
        header.strings("tokenizer.ggml.tokens")
