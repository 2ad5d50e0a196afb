"""Writes GGUF files byte by byte, wrong ones too."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

U8, I32, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 5, 4, 6, 7, 8, 9, 10
_FORMS = {U8: "<B", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q"}


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def scalar(kind: int, value: Any) -> bytes:
    return text(value) if kind == STRING else struct.pack(_FORMS[kind], value)


def array(kind: int, values: list[Any], count: int | None = None) -> bytes:
    head = struct.pack("<IQ", kind, len(values) if count is None else count)
    return head + b"".join(scalar(kind, value) for value in values)


@dataclass
class Tensor:
    name: str
    shape: tuple[int, ...]
    kind: int = 0
    offset: int = 0
    dimensions: int | None = None

    def write(self) -> bytes:
        count = len(self.shape) if self.dimensions is None else self.dimensions
        shape = b"".join(struct.pack("<Q", length) for length in self.shape)
        return text(self.name) + struct.pack("<I", count) + shape + struct.pack("<IQ", self.kind, self.offset)


@dataclass
class Raw:
    """A small sound model; change what should be wrong."""

    magic: bytes = b"GGUF"
    version: int = 3
    keys: dict[str, tuple[int, bytes]] = field(
        default_factory=lambda: {
            "general.architecture": (STRING, text("llama")),
            "llama.block_count": (U32, scalar(U32, 1)),
            "llama.embedding_length": (U32, scalar(U32, 4)),
            "llama.attention.head_count": (U32, scalar(U32, 2)),
            "llama.rope.dimension_count": (U32, scalar(U32, 2)),
            "llama.attention.layer_norm_rms_epsilon": (F32, scalar(F32, 1e-5)),
            "tokenizer.ggml.model": (STRING, text("gpt2")),
            "tokenizer.ggml.tokens": (ARRAY, array(STRING, ["a", "b", ""])),
            "tokenizer.ggml.scores": (ARRAY, array(F32, [0.0, 0.0, 0.0])),
            "tokenizer.ggml.token_type": (ARRAY, array(I32, [1, 1, 3])),
        }
    )
    tensors: list[Tensor] = field(default_factory=lambda: [Tensor("a", (4, 3)), Tensor("b", (32,), 8, 64)])
    data: bytes = bytes(64 + 34)
    extra_keys: bytes = b""
    key_count: int | None = None
    tensor_count: int | None = None
    alignment: int = 32

    def write(self) -> bytes:
        keys = len(self.keys) if self.key_count is None else self.key_count
        tensors = len(self.tensors) if self.tensor_count is None else self.tensor_count
        out = self.magic + struct.pack("<IQQ", self.version, tensors, keys)
        for name, (kind, payload) in self.keys.items():
            out += text(name) + struct.pack("<I", kind) + payload
        out += self.extra_keys + b"".join(tensor.write() for tensor in self.tensors)
        return out + bytes(-len(out) % self.alignment) + self.data

    def save(self, folder: Path, name: str = "model.gguf") -> Path:
        path = folder / name
        path.write_bytes(self.write())
        return path
