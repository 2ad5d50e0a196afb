"""Writes GGML files of 2023 as the converters of that time did, from small models of today or with random weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from local_llms.hub import read_header

MAGICS = {"ggml": b"lmgg", "ggmf": b"fmgg", "ggjt": b"tjgg"}
F32, F16, Q4_0, Q8_0 = 0, 1, 2, 8
UNKNOWN_TEXT = " \u2047 ".encode()
SPACE = "\u2581"

PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTES = PRINTABLE + [byte for byte in range(256) if byte not in PRINTABLE]
"""The order of single bytes in a byte-level BPE vocabulary."""

Tensors = Mapping[str, np.ndarray]


def write(
    path: Path,
    container: str,
    version: int,
    numbers: Sequence[int],
    vocabulary: Sequence[bytes],
    scores: Sequence[float] | None,
    tensors: Tensors,
    *,
    file_type: int = F32,
    repeat_count: bool = False,
    store=None,
) -> Path:
    """``tensors`` are in numpy's order. ``file_type`` F16 stores matrices in half precision; ``store`` maps a matrix to
    its type and bytes for anything else."""
    with path.open("wb") as file:
        file.write(MAGICS[container])
        if container != "ggml":
            file.write(struct.pack("<I", version))
        file.write(struct.pack(f"<{len(numbers)}I", *numbers))
        if repeat_count:
            file.write(struct.pack("<I", len(vocabulary)))
        for number, text in enumerate(vocabulary):
            file.write(struct.pack("<I", len(text)) + text)
            if scores is not None:
                file.write(struct.pack("<f", scores[number]))
        for name, data in tensors.items():
            kind, content = F32, data.astype("<f4").tobytes()
            if data.ndim == 2 and store is not None:
                kind, content = store(data)
            elif data.ndim == 2 and file_type == F16:
                kind, content = F16, data.astype("<f2").tobytes()
            text = name.encode()
            file.write(struct.pack("<3I", data.ndim, len(text), kind))
            file.write(struct.pack(f"<{data.ndim}I", *reversed(data.shape)) + text)
            if container == "ggjt":
                file.write(bytes(-file.tell() % 32))
            file.write(content)
    return path


def gguf_tensors(path: Path) -> dict[str, np.ndarray]:
    """The F32 tensors of a GGUF file, in numpy's order."""
    header = read_header(path)
    content = path.read_bytes()
    found = {}
    for tensor in header.tensors:
        start = header.data_offset + tensor.offset
        data = np.frombuffer(content[start : start + tensor.size], "<f4")
        found[tensor.name] = data.reshape(tuple(reversed(tensor.shape)))
    return found


def piece_bytes(path: Path) -> tuple[list[bytes], list[float]]:
    """The vocabulary of a GGUF file as llama.cpp's converter of 2023 wrote it: texts and scores."""
    header = read_header(path)
    texts = header.raw_strings("tokenizer.ggml.tokens")
    types = header.numbers("tokenizer.ggml.token_type").tolist()
    scores = header.numbers("tokenizer.ggml.scores").tolist()
    found = []
    for text, kind in zip(texts, types, strict=True):
        if kind == 2:
            found.append(UNKNOWN_TEXT)
        elif kind == 3:
            found.append(b"")
        elif kind == 6:
            found.append(bytes([int(text[3:5], 16)]))
        else:
            found.append(text.replace(SPACE.encode(), b" "))
    return found, scores


def write_stories(
    data: Path, path: Path, container: str = "ggjt", version: int = 3, file_type: int = F32, store=None
) -> Path:
    """stories260K as a LLaMA file. Its grouped keys and values are written once per head, as such a file has them."""
    source = data / "models" / "stories260K" / "stories260K-F32.gguf"
    weights = gguf_tensors(source)
    vocabulary, scores = piece_bytes(source)
    names = {
        "attn_norm": "attention_norm",
        "attn_q": "attention.wq",
        "attn_k": "attention.wk",
        "attn_v": "attention.wv",
        "attn_output": "attention.wo",
        "ffn_norm": "ffn_norm",
        "ffn_gate": "feed_forward.w1",
        "ffn_down": "feed_forward.w2",
        "ffn_up": "feed_forward.w3",
    }
    width, heads, layers = 64, 8, 5
    tensors = {
        "tok_embeddings.weight": weights["token_embd.weight"],
        "norm.weight": weights["output_norm.weight"],
        "output.weight": weights.get("output.weight", weights["token_embd.weight"]),
    }
    for layer in range(layers):
        for old, new in names.items():
            weight = weights[f"blk.{layer}.{old}.weight"]
            if old in ("attn_k", "attn_v"):
                weight = weight.reshape(4, 1, width // heads, width).repeat(2, axis=1).reshape(width, width)
            tensors[f"layers.{layer}.{new}.weight"] = weight
    numbers = (len(vocabulary), width, 4, heads, layers, width // heads, file_type)
    scored = scores if container != "ggml" else None
    return write(path, container, version, numbers, vocabulary, scored, tensors, file_type=file_type, store=store)


def safetensors(path: Path) -> dict[str, np.ndarray]:
    """The F32 tensors of a safetensors file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    found = {}
    for name, facts in header.items():
        if name != "__metadata__":
            start, end = facts["data_offsets"]
            found[name] = np.frombuffer(content[8 + length + start : 8 + length + end], "<f4").reshape(facts["shape"])
    return found


def neox_vocabulary(data: Path) -> list[bytes]:
    """The bytes of neox-stories' tokens."""
    letters = [chr(byte) for byte in PRINTABLE] + [chr(256 + number) for number in range(256 - len(PRINTABLE))]
    byte_of = dict(zip(letters, BYTES, strict=True))
    folder = data / "models" / "neox-stories"
    vocabulary = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    return [text.encode() if text.startswith("<|") else bytes(byte_of[letter] for letter in text) for text in ordered]


def write_neox(data: Path, path: Path, file_type: int = F32, lossy: bool = True) -> Path:
    """neox-stories. ``lossy``: the vocabulary as ggml's converter wrote it, which put U+FFFD for incomplete text."""
    vocabulary = neox_vocabulary(data)
    if lossy:
        vocabulary = [text.decode("utf-8", "replace").encode() for text in vocabulary]
    tensors = safetensors(data / "models" / "neox-stories" / "model.safetensors")
    return write(path, "ggml", 0, (512, 256, 96, 6, 4, 4, 1, file_type), vocabulary, None, tensors, file_type=file_type)


def write_gptj(path: Path, file_type: int = F32, seed: int = 3) -> tuple[Path, dict[str, np.ndarray]]:
    """A GPT-J model with random weights over a vocabulary of single bytes and a few words; its weights too."""
    vocabulary = [bytes([byte]) for byte in BYTES]
    vocabulary += [b" t", b"he", b"in", b" the", b"re", b" a", b"<|endoftext|>", b"<|extratoken_1|>"]
    size, context, width, heads, layers, rotated = len(vocabulary), 128, 32, 4, 2, 4
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return random.normal(0, 0.2, (rows, columns)).astype(np.float32)

    def vector(length: int, mean: float = 0.0) -> np.ndarray:
        return random.normal(mean, 0.1, length).astype(np.float32)

    tensors = {"transformer.wte.weight": matrix(size, width)}
    for layer in range(layers):
        block = f"transformer.h.{layer}."
        tensors |= {f"{block}ln_1.weight": vector(width, 1.0), f"{block}ln_1.bias": vector(width)}
        tensors |= {f"{block}attn.{name}_proj.weight": matrix(width, width) for name in ("k", "v", "q", "out")}
        tensors |= {f"{block}mlp.fc_in.weight": matrix(4 * width, width), f"{block}mlp.fc_in.bias": vector(4 * width)}
        tensors |= {f"{block}mlp.fc_out.weight": matrix(width, 4 * width), f"{block}mlp.fc_out.bias": vector(width)}
    tensors |= {"transformer.ln_f.weight": vector(width, 1.0), "transformer.ln_f.bias": vector(width)}
    tensors |= {"lm_head.weight": matrix(size, width), "lm_head.bias": vector(size)}
    numbers = (size, context, width, heads, layers, rotated, file_type)
    return write(path, "ggml", 0, numbers, vocabulary, None, tensors, file_type=file_type, repeat_count=True), tensors


def write_tiny_llama(path: Path, container: str = "ggjt", version: int = 3, file_type: int = F32) -> Path:
    """A LLaMA model with random weights, for tests that need no data."""
    vocabulary = [UNKNOWN_TEXT, b"", b"", *(bytes([byte]) for byte in range(256))]
    pieces = [" t", "he", "on", "ce", " the", " O", "nce", " Once", "</", "s>"]
    vocabulary += [piece.encode() for piece in pieces] + [bytes([byte]) for byte in range(32, 127)]
    scores = [0.0] * 259 + [-float(number) for number in range(len(vocabulary) - 259)]
    width, heads, layers, inner = 32, 2, 2, 96
    random = np.random.default_rng(5)
    shapes: dict[str, tuple[int, ...]] = {
        "tok_embeddings.weight": (len(vocabulary), width),
        "norm.weight": (width,),
        "output.weight": (len(vocabulary), width),
    }
    for layer in range(layers):
        block = f"layers.{layer}."
        shapes |= {f"{block}{name}_norm.weight": (width,) for name in ("attention", "ffn")}
        shapes |= {f"{block}attention.w{letter}.weight": (width, width) for letter in "qkvo"}
        shapes |= {f"{block}feed_forward.w{number}.weight": (inner, width) for number in (1, 3)}
        shapes[f"{block}feed_forward.w2.weight"] = (width, inner)
    tensors = {
        name: np.ones(shape, np.float32) if len(shape) == 1 else random.normal(0, 0.2, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    numbers = (len(vocabulary), width, inner, heads, layers, width // heads, file_type)
    scored = scores if container != "ggml" else None
    return write(path, container, version, numbers, vocabulary, scored, tensors, file_type=file_type)
