"""Which files hold RWKV weights. Nothing is loaded for that: a few bytes tell."""

from __future__ import annotations

import json
from pathlib import Path

from local_llms.backends.rwkv.ggmf import is_ggmf
from local_llms.errors import ModelFileError
from local_llms.hub.pickles import peek

_MARK = b"blocks.0.att."
"""Stands in the names of all versions' weights, and in those of no other model."""

_LONGEST_HEADER = 1 << 22
_SUFFIXES = (".pth", ".pt", ".safetensors", ".bin")


def kind_of(path: Path) -> str | None:
    """What a file or folder is, in words, if it holds RWKV weights; None where it does not."""
    try:
        if path.is_dir():
            return _kind_of_folder(path)
        if not path.is_file():
            return None
        if is_ggmf(path):
            return "it is a file of rwkv.cpp"
        if _names_weights(path):
            return "its weights have the names of RWKV's"
    except OSError:
        # What cannot be read is not claimed; loading it by name says why.
        return None
    return None


def weights_file(path: Path) -> Path:
    """The file itself, or the one in a folder that holds weights. Raises ModelFileError for none or several."""
    if not path.is_dir():
        return path
    found = _weights_in(path)
    if len(found) != 1:
        what = "no RWKV weights" if not found else f"{len(found)} files of RWKV weights: {_names(found)}"
        raise ModelFileError(f"{path} holds {what}. Give the path of one file.")
    return found[0]


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


def _names_weights(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(10)
        length = int.from_bytes(start[:8], "little")
        if start[8:9] == b"{" and length <= _LONGEST_HEADER:
            return _MARK in start[8:] + file.read(length)
    return start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04") and _MARK in peek(path)


def safetensors_names(path: Path) -> set[str]:
    """The names in a safetensors file; empty where its header cannot be read."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            return set()
        try:
            return set(json.loads(file.read(length)))
        except ValueError:
            return set()
