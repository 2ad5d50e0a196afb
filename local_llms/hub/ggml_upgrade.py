"""Rewrites a GGML file of early 2023, such as those of alpaca.cpp, in the last form that GGML files had.

Two things changed in spring 2023: LLaMA files got scores beside their tokens, and the ways to store quantized weights
were changed twice. Version 0 wrote neighbouring weights into one byte; since version 1 the lower halves of the bytes
are the first half of a block (llama.cpp #1405). Version 2 has its scales in half precision (#1508), so a scale may
change by one part in 2000; the quantized numbers stay what they were.

Sources of the old forms: ggml_quantize_q4_0 in utils.cpp of alpaca.cpp; block_v1_q4_0 and block_v1_q4_1 in
third_party/ggml of jart/cosmopolitan.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from local_llms.errors import ModelFileError
from local_llms.hub.ggml import LAYOUTS, QUANTIZATION_FACTOR, QUANTIZATION_VERSION, GGMLHeader, GGMLTensor

Bytes = NDArray[np.uint8]

_NUMBERS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8}
"""The types that a rewritten file may have (enum ggml_type)."""
_HALF = 16
"""Bytes that hold the 32 numbers of a block of 4 bits."""


def needs_upgrade(header: GGMLHeader) -> bool:
    """Whether a file is in a form that today's readers of GGML files do not read."""
    unscored = header.kind == "llama" and not header.scores
    return unscored or bool(_outdated(header))


def upgrade(header: GGMLHeader, target: Path) -> None:
    """Write the same model to ``target``. Raises ModelFileError for a form that nobody knows how to read any more."""
    for tensor in header.tensors:
        known = tensor.type.name in _NUMBERS
        if not known or (header.quantization_version == 0 and tensor.type.name in _UNKNOWN[header.container]):
            raise ModelFileError(
                f"{header.path} stores {tensor.name} as {tensor.type.name} in a form that lived for some weeks of "
                f"{header.label}. Look for a newer file of this model, best one in GGUF."
            )
    source = np.memmap(header.path, np.uint8, "r")
    with target.open("wb") as file:
        _write_beginning(header, file)
        for tensor in header.tensors:
            _write_tensor(header, tensor, source[tensor.offset : tensor.offset + tensor.size], file)


def _outdated(header: GGMLHeader) -> set[str]:
    types = {tensor.type.name for tensor in header.tensors}
    if header.quantization_version == QUANTIZATION_VERSION:
        return set()
    return types & (set(_CONVERTERS) | (_REORDERED if header.quantization_version == 0 else set()))


def _write_beginning(header: GGMLHeader, file: BinaryIO) -> None:
    llama = header.kind == "llama"
    numbers = dict(header.numbers)
    if not llama:
        numbers["file_type"] += QUANTIZATION_VERSION * QUANTIZATION_FACTOR
    file.write(b"tjgg" + struct.pack("<I", QUANTIZATION_VERSION + 1) if llama else b"lmgg")
    layout = LAYOUTS[header.kind]
    file.write(struct.pack(f"<{len(layout.numbers)}I", *(numbers[name] for name in layout.numbers)))
    if layout.repeats_count:
        file.write(struct.pack("<I", len(header.vocabulary)))
    for number, text in enumerate(header.vocabulary):
        file.write(struct.pack("<I", len(text)) + text)
        if llama:
            # LLaMA numbers its pieces by their scores, so where the file has none the number says as much.
            file.write(struct.pack("<f", header.scores[number] if header.scores else -float(number)))


def _write_tensor(header: GGMLHeader, tensor: GGMLTensor, content: Bytes, file: BinaryIO) -> None:
    name, kind = tensor.name.encode(), tensor.type.name
    file.write(struct.pack("<3I", len(tensor.shape), len(name), _NUMBERS[kind]))
    file.write(struct.pack(f"<{len(tensor.shape)}I", *tensor.shape) + name)
    if header.kind == "llama":
        file.write(bytes(-file.tell() % 32))
    if kind in _outdated(header):
        blocks = content.reshape(-1, tensor.type.size)
        content = _CONVERTERS[kind](blocks, header.quantization_version == 0)
    file.write(content.tobytes())


def _q4_0(blocks: Bytes, paired: bool) -> Bytes:
    return np.concatenate([_half_precision(blocks[:, :4]), _nibbles(blocks[:, 4:], paired)], axis=1)


def _q4_1(blocks: Bytes, paired: bool) -> Bytes:
    return np.concatenate([_half_precision(blocks[:, :8]), _nibbles(blocks[:, 8:], paired)], axis=1)


def _q8_0(blocks: Bytes, paired: bool) -> Bytes:
    return np.concatenate([_half_precision(blocks[:, :4]), blocks[:, 4:]], axis=1)


def _half_precision(scales: Bytes) -> Bytes:
    halves = np.ascontiguousarray(scales).view("<f4").astype("<f2")
    found: Bytes = halves.view(np.uint8)
    return found


def _nibbles(content: Bytes, paired: bool) -> Bytes:
    """The 4-bit numbers of blocks, the first 16 in the lower halves of the bytes; ``paired``: they are not yet so."""
    if not paired:
        return content
    numbers = np.stack([content & 15, content >> 4], axis=2).reshape(len(content), 2 * _HALF)
    packed: Bytes = numbers[:, :_HALF] | numbers[:, _HALF:] << 4
    return packed


_CONVERTERS: dict[str, Callable[[Bytes, bool], Bytes]] = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q8_0": _q8_0}
_REORDERED = {"Q5_0", "Q5_1"}
_UNKNOWN = {"ggml": {"Q4_1", *_REORDERED}, "ggmf": {"Q4_1", *_REORDERED}, "ggjt": _REORDERED}
"""What in version 0 had more than one form, or one that no source tells, by container."""
