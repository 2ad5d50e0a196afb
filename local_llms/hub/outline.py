"""What a file of weights holds, by name: number types and shapes, from its header alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from local_llms.hub.ggmf import is_ggmf, read_ggmf
from local_llms.hub.pickle_outline import Outline, outline_of_pickle
from local_llms.hub.safetensors_file import read_safetensors

_START = 8
"""Bytes that tell a file of rwkv.cpp from another."""


def outline_of(path: Path) -> Mapping[str, Outline]:
    """The tensors of a safetensors file, of one of rwkv.cpp, or of a PyTorch checkpoint; none of another kind.

    Raises ModelFileError for a damaged one of the first two kinds, OSError.
    """
    with path.open("rb") as file:
        start = file.read(_START + 1)
    if is_ggmf(start):
        return {tensor.name: Outline(tensor.kind.name, tensor.shape) for tensor in read_ggmf(path).tensors}
    if start[_START:] == b"{":
        return {name: Outline(tensor.type, tensor.shape) for name, tensor in read_safetensors(path).tensors.items()}
    return outline_of_pickle(path)
