"""The reader of safetensors files, against the library's own writer, and on damaged files."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from local_llms.errors import ModelFileError
from local_llms.hub.safetensors_file import read_safetensors

KINDS = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def write(path: Path, entries: dict, data: bytes) -> Path:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_library_writes(tmp_path: Path, kind: str) -> None:
    chance = np.random.default_rng(1)
    tensors = {
        "matrix": (chance.normal(0, 3, (3, 5)) > 0).astype(kind) + np.zeros((3, 5), kind),
        "scalar": np.array(1, kind),
        "none": np.zeros((0, 4), kind),
        "b": np.arange(7).astype(kind),
    }
    save_file(tensors, tmp_path / "file", metadata={"format": "np"})
    found = read_safetensors(tmp_path / "file")
    assert set(found.tensors) == set(tensors)
    for name, expected in tensors.items():
        assert found.tensors[name].shape == expected.shape
        read = found.read(name)
        assert read.dtype == expected.dtype
        np.testing.assert_array_equal(read, expected)


def test_bfloat16_is_read_as_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 0.15625, 3.0e38], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    path = write(tmp_path / "file", {"x": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}, halves)
    found = read_safetensors(path).read("x")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.ravel(), values, rtol=2**-8)


GOOD = {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
WRONG = {
    "no header": b"",
    "no JSON": b"{",
    "deep": b"[" * 100_000,
    "a list": b"[1]",
    "no entry": {"x": 3},
    "a type that is none": {"x": {"dtype": "F1", "shape": [2], "data_offsets": [0, 8]}},
    "a negative shape": {"x": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
    "a shape of text": {"x": {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]}},
    "a truth as a length": {"x": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
    "too many dimensions": {"x": {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}},
    "a huge shape": {"x": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 8]}},
    "past the end": {"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}},
    "a gap": {"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
    "two in one place": {**GOOD, "y": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
    "something left over": {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    "one offset": {"x": {"dtype": "F32", "shape": [2], "data_offsets": [8]}},
    "backwards": {"x": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_sound(tmp_path: Path, case: str) -> None:
    assert read_safetensors(write(tmp_path / "good", GOOD, bytes(8))).read("x").tolist() == [0, 0]
    with pytest.raises(ModelFileError, match="file"):
        read_safetensors(write(tmp_path / "file", WRONG[case], bytes(8)))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="missing"):
        read_safetensors(tmp_path / "missing")


def test_a_file_that_is_cut_short_or_damaged(tmp_path: Path) -> None:
    save_file({f"t{number}": np.ones((4, 8), np.float32) for number in range(5)}, tmp_path / "good")
    content = (tmp_path / "good").read_bytes()
    chance = random.Random(3)
    for length in [0, 1, 7, 8, 9, *(chance.randrange(len(content)) for _ in range(60)), len(content) - 1]:
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(ModelFileError):
            read_safetensors(tmp_path / "cut")
    for _ in range(200):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content) - 5 * 128)] ^= 1 << chance.randrange(8)
        (tmp_path / "bad").write_bytes(damaged)
        try:
            # A name may have changed and still be one; whatever is read has its shape.
            found = read_safetensors(tmp_path / "bad")
            assert all(found.read(name).shape == tensor.shape for name, tensor in found.tensors.items())
        except ModelFileError:
            continue
