"""What a file is that is not a GGUF file, so that an error can say what to do about it."""

from __future__ import annotations

PROBE_BYTES = 512
"""How many bytes from the start of a file are enough to tell."""


def describe(start: bytes) -> str | None:
    """A sentence or two about a file with that beginning (``PROBE_BYTES`` are enough); None where nothing is known."""
    magic = start[:4]
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return "It is a web page: the download saved the page of the file, not the file. Download it again."
    if start.startswith(b"version https://git-lfs"):
        return 'It is a pointer of git-lfs, not the model: run "git lfs pull" in that repository.'
    if magic in (b"lmgg", b"fmgg", b"tjgg", b"algg", b"ggml"):
        return (
            "It is in GGML, the format of 2023: without backend= it goes to ctransformers. Better look for it as GGUF."
        )
    if magic == b"FUGG":
        return "Its bytes are in big-endian order: look for the little-endian file of this model."
    if start.startswith(b"PK\x03\x04"):
        return "It is a zip archive, perhaps a PyTorch checkpoint: llama.cpp needs the model converted to GGUF."
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        return "It is a Python pickle, perhaps a PyTorch checkpoint: llama.cpp needs the model converted to GGUF."
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd", b"7z\xbc\xaf")):
        return "It is a compressed file: unpack it first."
    if _is_safetensors(start):
        return "It is a safetensors file: llama.cpp needs the model converted to GGUF."
    if text.startswith((b'{"', b"[{")):
        return "It is JSON text, perhaps an error message that was saved in place of the model. Download it again."
    return None


def _is_safetensors(start: bytes) -> bool:
    return len(start) > 10 and int.from_bytes(start[:8], "little") < 1 << 28 and start[8:10] in (b'{"', b"{ ")
