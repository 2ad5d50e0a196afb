"""Which files hold RWKV weights. Nothing is loaded for that: a few bytes tell."""

from __future__ import annotations

from pathlib import Path

from local_llms.errors import ModelFileError
from local_llms.hub.ggmf import is_ggmf
from local_llms.hub.pickles import peek

_MARK = b"blocks.0.att."
"""Stands in the names of all versions' weights, and in those of no other model."""

START_BYTES = 9
"""From the start of a file; they tell its format."""

_LONGEST_HEADER = 1 << 22
_SUFFIXES = (".pth", ".pt", ".safetensors", ".bin")


def kind_of(path: Path) -> str | None:
    """What a file or folder is, in words, if it holds RWKV weights; None where it does not."""
    try:
        if path.is_dir():
            return _kind_of_folder(path)
        if not path.is_file():
            return None
        with path.open("rb") as file:
            start = file.read(START_BYTES)
            if is_ggmf(start):
                return "it is a file of rwkv.cpp"
            header = file.read(_header_length(start)) if is_safetensors(start) else b""
        if _MARK in header or (start[:2] in (b"PK", b"\x80\x02") and _MARK in peek(path)):
            return "its weights have the names of RWKV's"
    except OSError:
        # What cannot be read is not claimed; loading it by name says why.
        return None
    return None


def weights_file(path: Path) -> tuple[Path, bytes]:
    """The file itself, or the one in a folder that holds weights, and its first bytes.

    Raises ModelFileError for none or several, and for one that cannot be read.
    """
    try:
        if path.is_dir():
            found = _weights_in(path)
            if len(found) != 1:
                what = "no RWKV weights" if not found else f"{len(found)} files of RWKV weights: {_names(found)}"
                raise ModelFileError(f"{path} holds {what}. Give the path of one file.")
            path = found[0]
        with path.open("rb") as file:
            return path, file.read(START_BYTES)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error


def _kind_of_folder(folder: Path) -> str | None:
    found = _weights_in(folder)
    return f"{found[0].name} in it has weights with the names of RWKV's" if found else None


def _weights_in(folder: Path) -> list[Path]:
    return [
        entry
        for entry in sorted(folder.iterdir())
        if entry.suffix.lower() in _SUFFIXES and entry.is_file() and kind_of(entry) is not None
    ]


def _names(files: list[Path]) -> str:
    return ", ".join(file.name for file in files[:5]) + (", …" if len(files) > 5 else "")


def is_safetensors(start: bytes) -> bool:
    """Whether a file that begins so is one of safetensors."""
    return start[8:9] == b"{" and _header_length(start) <= _LONGEST_HEADER


def _header_length(start: bytes) -> int:
    return int.from_bytes(start[:8], "little")
