"""PyTorch checkpoints become safetensors files in the cache. A pickle can run code; what is made of it here cannot.

It is read once, by torch's own reader that builds tensors and plain values only (``weights_only=True``), and never in
another way. The converted file lies with the other models in the cache: ``local-llms cache`` lists and removes it.

Layout of a safetensors file: https://huggingface.co/docs/safetensors. Of a checkpoint: a zip archive whose member
``NAME/data.pkl`` describes the tensors and whose members ``NAME/data/0``, … are their bytes; before torch 1.6 one
pickle after another.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_llms.errors import MissingDependency, ModelFileError
from local_llms.hub.derived import keep

if TYPE_CHECKING:
    import torch

LEFT_OUT = "left_out"
"""Key in a converted file's metadata: a JSON list of what the checkpoint had beside tensors, by name."""

_LAYOUT = 1
"""Of converted files. Another number makes every one anew."""
WRAPPERS = ("state_dict", "model", "module")
"""Names under which training programs put the weights beside other things."""
_TYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_DAMAGES = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    EOFError,
    OSError,
    OverflowError,
    MemoryError,
)
"""What a damaged pickle makes its readers raise."""


def as_safetensors(path: Path, *, extra: str) -> Path:
    """The tensors of a PyTorch checkpoint, as a safetensors file in the cache; converted where it is not there yet.

    Tensors keep their names, shapes and number types. A file that changed since is converted anew; several processes
    at once convert once. ``extra``: the extra of this package that brings torch, for MissingDependency.

    Raises ModelFileError for a file that is damaged, holds no tensors, or holds anything but tensors and plain values,
    MissingDependency, and DownloadError where the cache has no room.
    """
    try:
        real = path.resolve(strict=True)
        status = real.stat()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error
    origin = hashlib.sha256(f"{_LAYOUT} {real} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    name = f"{path.stem}-{origin[:12]}"

    def prepare() -> Callable[[Path], None]:
        tensors, left_out = read_pickle(path, extra=extra)
        return partial(_write, tensors, {LEFT_OUT: json.dumps(left_out)})

    return keep(name, f"{path.stem}.safetensors", origin, prepare)


def read_pickle(path: Path, *, extra: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors of a PyTorch checkpoint by name, and the names of what else it holds. Runs no code of the file.

    Weights below one of the names that training programs use ("state_dict", "model", "module") are taken out of it.
    The tensors of a zip archive are mapped, not read. Raises ModelFileError and MissingDependency.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependency("torch", extra=extra, purpose="Reading a PyTorch checkpoint") from error
    archive = _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except _DAMAGES as error:
        raise _bad(path, f"{type(error).__name__}: {_first_line(error)}") from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise _bad(path, f"it holds a {type(content).__name__} instead of tensors by name")
    tensors = {
        str(name): value
        for name, value in content.items()
        if isinstance(value, torch.Tensor) and value.layout == torch.strided and _type(value) in _TYPES
    }
    if not tensors:
        raise _bad(path, "it holds no tensors")
    return tensors, [str(name) for name in content if name not in tensors]


def peek(path: Path, limit: int = 1 << 22) -> bytes:
    """The part of a checkpoint that names its tensors, ``limit`` bytes at most; b"" for a file of another kind.

    Names stand in a pickle as they are, so ``b"blocks.0.att." in peek(path)`` tells a kind of model without reading it
    as a pickle.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                member = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
                if member is None:
                    return b""
                with archive.open(member) as file:
                    return file.read(limit)
        with path.open("rb") as file:
            start = file.read(limit)
            return start if start[:1] == b"\x80" else b""
    except (OSError, zipfile.BadZipFile, zlib.error, ValueError, RuntimeError):
        return b""


def _check_archive(path: Path) -> bool:
    """Whether the checkpoint is a zip archive; raises ModelFileError for one that is damaged.

    A changed bit in a weight shows here and nowhere else: each member has a checksum. Members are stored as they are,
    so an archive cannot be larger in memory than on the disk.
    """
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                # The protocol that torch has always written and reads without doubts.
                if file.read(2) == b"\x80\x02":
                    return False
            raise _bad(path, "it is neither a zip archive nor a pickle of torch")
        with zipfile.ZipFile(path) as archive:
            packed = next((item for item in archive.infolist() if item.compress_type != zipfile.ZIP_STORED), None)
            if packed is not None:
                raise _bad(path, f"its member {packed.filename} is compressed")
            wrong = archive.testzip()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error
    except (zipfile.BadZipFile, zlib.error, ValueError, RuntimeError, EOFError) as error:
        raise _bad(path, str(error)) from error
    if wrong is not None:
        raise _bad(path, f"its member {wrong} does not have the checksum that was written with it")
    return True


def _write(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], target: Path) -> None:
    """Write a safetensors file."""
    with target.open("wb") as file:
        for part in _parts(tensors, metadata):
            file.write(part)


def _parts(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The file's bytes in order: one tensor in memory at a time, whatever the size of the model."""
    import torch

    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _TYPES[_type(tensor)], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for tensor in tensors.values():
        yield tensor.detach().reshape(-1).contiguous().view(torch.uint8).numpy().data


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _bad(path: Path, what: str) -> ModelFileError:
    return ModelFileError(
        f"{path} is not a sound PyTorch checkpoint: {what}. A checkpoint that holds more than tensors and plain values "
        "is refused, since it could run code; fetch the file again, or look for the model as safetensors."
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
