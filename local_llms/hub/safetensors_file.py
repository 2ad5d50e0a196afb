"""Reads safetensors files with numpy alone: names, shapes and one tensor at a time.

Nothing in a file is believed before it is compared with what the file can hold. numpy has no bfloat16: such tensors are
read as float32, which holds every bfloat16 exactly.

Format: https://github.com/huggingface/safetensors/blob/main/README.md#format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from local_llms.errors import ModelFileError

MAX_HEADER = 100_000_000
"""Bytes; the limit of the format."""
MAX_TENSORS = 200_000

_KINDS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor: its type as the format names it, its shape in numpy's order, and the byte where it begins."""

    type: str
    shape: tuple[int, ...]
    offset: int

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """The header of a sound file."""

    path: Path
    tensors: Mapping[str, StoredTensor]

    def read(self, name: str) -> NDArray[Any]:
        """One tensor, in its own number type; bfloat16 as float32. Raises ModelFileError."""
        tensor = self.tensors[name]
        try:
            values: NDArray[Any] = np.fromfile(
                self.path, _KINDS[tensor.type], tensor.elements, offset=tensor.offset
            ).reshape(tensor.shape)
        except (OSError, ValueError) as error:
            raise ModelFileError(f"{self.path} changed while {name} was read: {error}. Try again.") from error
        if tensor.type == "BF16":
            return (values.astype("<u4") << 16).view("<f4")
        return values


def read_safetensors(path: Path) -> SafetensorsFile:
    """Read and check a header. Raises ModelFileError that says what is wrong with the file, and what to do."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER, size - 8):
                raise _bad(path, f"its header would have {length} bytes, and the file has {size}")
            text = file.read(length)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"its header is no JSON ({type(error).__name__})") from error
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise _bad(path, "its header is no list of tensors by name")
    header.pop("__metadata__", None)
    start = 8 + length
    tensors = {name: _tensor(path, name, entry, start, size) for name, entry in header.items()}
    expected = start
    for name, tensor in sorted(tensors.items(), key=lambda pair: (pair[1].offset, pair[1].elements)):
        if tensor.offset != expected:
            raise _bad(path, f"{name} begins at byte {tensor.offset} instead of {expected}")
        expected += tensor.elements * np.dtype(_KINDS[tensor.type]).itemsize
    if expected != size:
        raise _bad(path, f"its tensors end at byte {expected}, and the file has {size}")
    return SafetensorsFile(path, tensors)


def _tensor(path: Path, name: str, entry: Any, start: int, size: int) -> StoredTensor:
    """One entry of a header whose tensors begin at byte ``start``."""
    fields = entry if isinstance(entry, dict) else {}
    kind, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(kind, str) or not _whole(shape) or not _whole(offsets) or len(offsets) != 2:
        raise _bad(path, f"the entry of {name!r} is incomplete")
    if kind not in _KINDS:
        raise ModelFileError(f"{path}: {name} is of the type {kind}, which is not understood. Known: {list(_KINDS)}.")
    tensor = StoredTensor(kind, tuple(shape), start + offsets[0])
    bytes_needed = tensor.elements * np.dtype(_KINDS[kind]).itemsize
    if offsets[1] - offsets[0] != bytes_needed or start + offsets[1] > size:
        raise _bad(path, f"{name} has the shape {tensor.shape} in {offsets[1] - offsets[0]} bytes")
    return tensor


def _whole(value: Any) -> TypeGuard[list[int]]:
    """Whether it is a list of a few whole numbers that are not negative."""
    return isinstance(value, list) and len(value) <= 8 and all(type(number) is int and number >= 0 for number in value)


def _bad(path: Path, what: str) -> ModelFileError:
    return ModelFileError(
        f"{path} is not a sound safetensors file: {what}. It is damaged or cut short: fetch it again."
    )
