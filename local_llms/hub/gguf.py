"""Reads the header of a GGUF file: metadata and the list of tensors, not the weights.

A file may come from anywhere, so nothing in it is believed: every count and length is compared with what the file can
hold before memory is taken, and whatever is wrong is a ModelFileError. Long arrays, such as a vocabulary, are skipped
and read when asked for.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; limits as in ggml/src/gguf.cpp of llama.cpp.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from local_llms.errors import ModelFileError
from local_llms.hub.bounded import AGAIN, BoundedReader
from local_llms.hub.foreign import PROBE_BYTES, describe
from local_llms.hub.gguf_types import ARRAY, REMOVED_TENSOR_TYPES, STRING, TENSOR_TYPES, VALUE_TYPES, TensorType

MAX_KEYS = 65_536
MAX_TENSORS = 100_000
MAX_STRING = 16 << 20
MAX_TEXT = 64 << 20
"""Bytes in all single strings of a header together: keys, values and tensors' names."""
MAX_ARRAY = 4_000_000
MAX_NAME = 63
"""Bytes in a tensor's name: ggml keeps 64 with the closing zero."""
MAX_DIMENSIONS = 4

_BLOCK = 1 << 20
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class GGUFArray:
    """An array of the metadata that was skipped: ``count`` values at ``offset``. ``type``: "string" or numpy's name."""

    type: str
    count: int
    offset: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor. ``shape`` is in ggml's order: the first number runs fastest. ``offset`` counts from the data."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int

    @property
    def elements(self) -> int:
        """Number of weights."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return self.elements // self.type.block * self.type.size


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """What a GGUF file says about itself.

    ``metadata`` holds plain values, and a GGUFArray for each array: ``strings`` and ``numbers`` read those. ``types``
    names the type of each plain value: "string" or numpy's name.
    ``data_offset`` is where the weights begin in the file, ``size`` the bytes of the whole file.
    """

    path: Path
    version: int
    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    alignment: int
    size: int
    types: Mapping[str, str] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """As ``general.architecture`` names it, such as "llama"; "" where it is missing."""
        value = self.metadata.get("general.architecture")
        return value if isinstance(value, str) else ""

    @property
    def parameters(self) -> int:
        """Number of weights in all tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    def strings(self, key: str) -> list[str]:
        """The array of strings under ``key``; bytes that are not UTF-8 become U+FFFD. [] where there is none."""
        return [value.decode("utf-8", "replace") for value in self.raw_strings(key)]

    def raw_strings(self, key: str) -> list[bytes]:
        """The array of strings under ``key``, as bytes. [] where there is none."""
        array = self._array(key)
        if array is None:
            return []
        if array.type != "string":
            raise ModelFileError(f"{self.path}: {key} holds {array.type} values instead of strings. {AGAIN}")
        found: list[bytes] = []
        with self.path.open("rb") as file:
            reader = _Reader(file, self.path, self.size)
            reader.seek(array.offset)
            reader.walk_strings(array.count, key, found)
        return found

    def numbers(self, key: str) -> NDArray[Any]:
        """The array of numbers under ``key``, in its own type. Empty where there is none."""
        array = self._array(key)
        if array is None:
            return np.empty(0, np.float32)
        if array.type == "string":
            raise ModelFileError(f"{self.path}: {key} holds strings instead of numbers. {AGAIN}")
        kind = np.dtype(array.type).newbyteorder("<")
        with self.path.open("rb") as file:
            reader = _Reader(file, self.path, self.size)
            reader.seek(array.offset)
            return np.frombuffer(reader.take(array.count * kind.itemsize, key), kind)

    def _array(self, key: str) -> GGUFArray | None:
        value = self.metadata.get(key)
        if value is None or isinstance(value, GGUFArray):
            return value
        raise ModelFileError(f"{self.path}: {key} is a single value instead of an array. {AGAIN}")


def read_header(path: str | os.PathLike[str]) -> GGUFHeader:
    """Read the header of a GGUF file. Raises ModelFileError that says what is wrong with the file, and what to do."""
    path = Path(path)
    size = _size_of_regular_file(path)
    try:
        with path.open("rb", buffering=_BLOCK) as file:
            return _parse(_Reader(file, path, size))
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error


def _size_of_regular_file(path: Path) -> int:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise ModelFileError(f"There is no file {path}. Check the path.") from None
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}.") from error
    if stat.S_ISDIR(found.st_mode):
        inside = sorted(entry.name for entry in path.glob("*.gguf"))
        hint = f" such as {path / inside[0]}" if inside else "; it has none"
        raise ModelFileError(f"{path} is a folder. Give a GGUF file in it{hint}.")
    if not stat.S_ISREG(found.st_mode):
        raise ModelFileError(f"{path} is no ordinary file. Give a GGUF file.")
    if found.st_size == 0:
        raise ModelFileError(f"{path} is empty. Fetch it again.")
    return found.st_size


class _Reader(BoundedReader):
    """A position in a GGUF file; all texts read together are bounded too."""

    format = "GGUF"

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        super().__init__(file, path, size)
        self._text = 0

    def u32(self, what: str) -> int:
        value: int = _U32.unpack(self.take(4, what))[0]
        return value

    def u64(self, what: str) -> int:
        value: int = _U64.unpack(self.take(8, what))[0]
        return value

    def string(self, what: str, limit: int = MAX_STRING) -> bytes:
        length = self.u64(f"the length of {what}")
        if length > limit:
            raise self.fail(f"{what} would have {length} bytes, more than the {limit} allowed")
        self._text += length
        if self._text > MAX_TEXT:
            raise self.fail(f"its texts have more than {MAX_TEXT} bytes together")
        return self.take(length, what)

    def walk_strings(self, count: int, what: str, found: list[bytes] | None) -> None:
        """Go past ``count`` strings, a block of the file at a time; collect them where ``found`` is given."""
        block, at = b"", 0
        for _ in range(count):
            if at + 8 > len(block):
                block, at = self._refill(block[at:], 8, what), 0
            length: int = _U64.unpack_from(block, at)[0]
            at += 8
            if at + length > len(block):
                if length > MAX_STRING:
                    raise self.fail(f"a string of {what} would have {length} bytes")
                block, at = self._refill(block[at:], length, what), 0
            if found is not None:
                found.append(block[at : at + length])
            at += length
        self.seek(self.at - len(block) + at)

    def _refill(self, rest: bytes, need: int, what: str) -> bytes:
        more = max(need - len(rest), min(_BLOCK, self.left))
        return rest + self.take(more, what)


def _parse(reader: _Reader) -> GGUFHeader:
    version = _read_preamble(reader)
    tensor_count = reader.u64("the number of tensors")
    key_count = reader.u64("the number of metadata keys")
    # A tensor takes 24 bytes at least (with an empty name and no dimension), a key 13.
    if tensor_count > min(MAX_TENSORS, reader.left // 24):
        raise reader.fail(f"it claims {tensor_count} tensors")
    if key_count > min(MAX_KEYS, reader.left // 13):
        raise reader.fail(f"it claims {key_count} metadata keys")
    metadata: dict[str, Any] = {}
    types: dict[str, str] = {}
    for _ in range(key_count):
        key = reader.string("a metadata key", limit=65_535).decode("utf-8", "replace")
        if not key or key in metadata:
            raise reader.fail(f"the metadata key {key!r} comes twice" if key else "a metadata key is empty")
        kind = reader.u32(f"the type of {key}")
        metadata[key] = _read_value(reader, kind, key)
        if kind != ARRAY:
            types[key] = "string" if kind == STRING else VALUE_TYPES[kind][0]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
        raise reader.fail(f"general.alignment is {alignment!r} instead of a power of two")
    tensors = tuple(_read_tensor(reader, alignment) for _ in range(tensor_count))
    padding = -reader.at % alignment
    data_offset = reader.at + padding if tensors else reader.at
    return GGUFHeader(reader.path, version, metadata, tensors, data_offset, alignment, reader.size, types)


def _read_preamble(reader: _Reader) -> int:
    start = reader.take(min(reader.size, PROBE_BYTES), "the beginning")
    if start[:4] != b"GGUF":
        hint = describe(start) or "Give a file in the GGUF format, which begins with these four letters."
        raise ModelFileError(f"{reader.path} is not a GGUF file. {hint}")
    reader.seek(4)
    version = reader.u32("the version")
    if version == 1:
        raise reader.fail("it has version 1 of the format, which llama.cpp no longer reads", "Look for a newer file.")
    if version and not version & 0xFFFF:
        raise reader.fail("its bytes are in big-endian order", "Look for the little-endian file of this model.")
    if version not in (2, 3):
        raise reader.fail(f"it has version {version} of the format; 2 and 3 are known", "Look for another file.")
    return version


def _read_value(reader: _Reader, kind: int, key: str) -> Any:
    if kind == STRING:
        return reader.string(key).decode("utf-8", "replace")
    if kind == ARRAY:
        return _skip_array(reader, key)
    if kind not in VALUE_TYPES:
        raise reader.fail(f"{key} has the unknown type {kind}")
    form = struct.Struct("<" + VALUE_TYPES[kind][1])
    return form.unpack(reader.take(form.size, key))[0]


def _skip_array(reader: _Reader, key: str) -> GGUFArray:
    kind, count = reader.u32(f"the type of {key}"), reader.u64(f"the length of {key}")
    if kind != STRING and kind not in VALUE_TYPES:
        raise reader.fail(f"{key} is an array of the unknown type {kind}")
    if count > MAX_ARRAY:
        raise reader.fail(f"{key} would have {count} values, more than the {MAX_ARRAY} allowed")
    offset = reader.at
    if kind == STRING:
        reader.walk_strings(count, key, None)
        return GGUFArray("string", count, offset)
    name, letter = VALUE_TYPES[kind]
    reader.skip(count * struct.calcsize("<" + letter), key)
    return GGUFArray(name, count, offset)


def _read_tensor(reader: _Reader, alignment: int) -> TensorInfo:
    name = reader.string("a tensor's name", limit=MAX_NAME).decode("utf-8", "replace")
    dimensions = reader.u32(f"the number of dimensions of {name}")
    if dimensions > MAX_DIMENSIONS:
        raise reader.fail(f"the tensor {name} has {dimensions} dimensions, more than {MAX_DIMENSIONS}")
    shape = tuple(reader.u64(f"the shape of {name}") for _ in range(dimensions))
    number = reader.u32(f"the type of {name}")
    if number in REMOVED_TENSOR_TYPES:
        removed = REMOVED_TENSOR_TYPES[number]
        raise reader.fail(
            f"the tensor {name} is of type {removed}, which llama.cpp has removed", "Look for a newer file."
        )
    if number not in TENSOR_TYPES:
        raise reader.fail(f"the tensor {name} has the unknown type {number}")
    offset = reader.u64(f"the offset of {name}")
    if offset % alignment:
        raise reader.fail(f"the tensor {name} begins at {offset}, which is no multiple of {alignment}")
    return TensorInfo(name, shape, TENSOR_TYPES[number], offset)
