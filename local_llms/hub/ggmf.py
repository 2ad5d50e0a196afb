"""Reads the files of rwkv.cpp: magic "ggmf", version 100 or 101.

A header of six 32-bit numbers (magic, version, vocabulary, width, layers, number type), then the tensors one after the
other: number of dimensions, length of the name, number type, the dimensions (the fastest first), the name, the numbers.
Little-endian. Layout: RWKV/rwkv.cpp:docs/FILE_FORMAT.md. Quantized types changed with version 101, which has ggml's of
today.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

from local_llms.errors import ModelFileError
from local_llms.hub.bounded import AGAIN
from local_llms.hub.gguf_types import TENSOR_TYPES, TensorType

MAGIC = b"fmgg"
"""The first four bytes: the number 0x67676d66, little-endian."""

VERSIONS = (100, 101)

_HEADER = struct.Struct("<6I")
_TENSOR = struct.Struct("<3I")
_BY_NAME = {kind.name: kind for kind in TENSOR_TYPES.values()}
_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q5_0", 8: "Q5_1", 9: "Q8_0"}
_MOST_DIMENSIONS = 3
_LONGEST_NAME = 128


@dataclass(frozen=True, slots=True)
class GgmfTensor:
    """One tensor: its shape as in PyTorch, the slowest dimension first, and the byte where its numbers begin."""

    name: str
    kind: TensorType
    shape: tuple[int, ...]
    offset: int

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.elements // self.kind.block * self.kind.size


@dataclass(frozen=True, slots=True)
class GgmfFile:
    """A checked file. ``quantization``: the type that most matrices have."""

    path: Path
    vocabulary_size: int
    width: int
    layers: int
    quantization: str
    tensors: tuple[GgmfTensor, ...]


def is_ggmf(start: bytes) -> bool:
    """Whether a file that begins so is one of rwkv.cpp. Files of llama.cpp had the same magic with the version 1."""
    return start[:4] == MAGIC and int.from_bytes(start[4:8], "little") in VERSIONS


def read_ggmf(path: Path) -> GgmfFile:
    """Read and check everything but the numbers. Raises ModelFileError that says what to do."""
    try:
        return _read(path)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error


def _read(path: Path) -> GgmfFile:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or header[:4] != MAGIC:
            raise _bad(path, "it does not begin like one")
        _, version, vocabulary, width, layers, kind = _HEADER.unpack(header)
        if version not in VERSIONS:
            raise _bad(path, f"its version is {version} instead of 100 or 101")
        if kind not in _TYPES:
            raise _bad(path, f"its number type is {kind}")
        tensors: list[GgmfTensor] = []
        names: set[str] = set()
        place = _HEADER.size
        while place < size:
            file.seek(place)
            tensor = _tensor(path, file.read(_TENSOR.size + 4 * _MOST_DIMENSIONS + _LONGEST_NAME), place, version)
            if tensor.name in names:
                raise _bad(path, f"the tensor {tensor.name} comes twice")
            place = tensor.offset + tensor.size
            if place > size:
                raise _bad(path, f"the tensor {tensor.name} ends at byte {place}, and the file has {size}")
            tensors.append(tensor)
            names.add(tensor.name)
    found = next((tensor.shape for tensor in tensors if tensor.name == "emb.weight"), None)
    if found != (vocabulary, width):
        raise _bad(path, f"its header tells {vocabulary} tokens and the width {width}, and emb.weight is {found}")
    if f"blocks.{layers - 1}.ln1.weight" not in names or f"blocks.{layers}.ln1.weight" in names:
        raise _bad(path, f"its header tells {layers} layers, and there is another number of them")
    return GgmfFile(path, vocabulary, width, layers, _TYPES[kind], tuple(tensors))


def _tensor(path: Path, data: bytes, place: int, version: int) -> GgmfTensor:
    """The tensor whose description begins at byte ``place``; ``data`` is what stands there."""
    if len(data) < _TENSOR.size:
        raise _bad(path, f"it ends within the description of a tensor, at byte {place}")
    dimensions, length, number = _TENSOR.unpack_from(data)
    if not 1 <= dimensions <= _MOST_DIMENSIONS or not 1 <= length <= _LONGEST_NAME:
        raise _bad(path, f"at byte {place} stands a tensor of {dimensions} dimensions with a name of {length} bytes")
    end = _TENSOR.size + 4 * dimensions
    if len(data) < end + length:
        raise _bad(path, f"it ends within the description of a tensor, at byte {place}")
    try:
        name = data[end : end + length].decode("ascii")
    except UnicodeDecodeError:
        raise _bad(path, f"at byte {place} stands a tensor whose name is no text") from None
    kind = _BY_NAME.get(_TYPES.get(number, ""))
    if kind is None:
        raise _bad(path, f"{name} has the number type {number}", "rwkv.cpp dropped such types: quantize it anew.")
    if version == VERSIONS[0] and kind.block > 1:
        raise _bad(
            path,
            f"{name} is quantized in a format of before May 2023 (file version 100)",
            "Quantize the model anew with a newer rwkv.cpp.",
        )
    shape = struct.unpack_from(f"<{dimensions}I", data, _TENSOR.size)[::-1]
    if 0 in shape or shape[-1] % kind.block:
        raise _bad(path, f"{name} of type {kind.name} has the shape {shape}")
    return GgmfTensor(name, kind, shape, place + end + length)


def _bad(path: Path, what: str, advice: str = AGAIN) -> ModelFileError:
    return ModelFileError(f"{path} is not a sound file of rwkv.cpp: {what}. {advice}")
