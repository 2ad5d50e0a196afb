"""Opens weights of any format: .pth, safetensors, and the files of rwkv.cpp."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from local_llms.backends.rwkv.files import is_safetensors, weights_file
from local_llms.backends.rwkv.ggmf import arrays_of
from local_llms.backends.rwkv.weights import Weights
from local_llms.errors import ModelFileError
from local_llms.hub.ggmf import is_ggmf, read_ggmf
from local_llms.hub.pickles import LEFT_OUT, as_safetensors
from local_llms.hub.rwkv_facts import context_of

_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
_GGML_EPSILON = 1e-5
"""What rwkv.cpp takes for the group norm of version 5."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights that were not yet read for a device.

    - ``file``: where they stand. ``tensors``: by the names of the training program.
    - ``quantization``: number type of the file. ``stored``: torch's type of its matrices.
    - ``of_rwkv_cpp``: the decay is stored as it is used, and the norm of version 5 has another epsilon.
    - ``trained_context``: as the file's name tells it, such as "ctx4096", which RWKV's files have by custom; else 0.
    """

    file: Path
    tensors: Mapping[str, torch.Tensor]
    quantization: str
    stored: torch.dtype
    of_rwkv_cpp: bool
    trained_context: int

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Open a file, or the one in a folder. Raises ModelFileError, MissingDependency and DownloadError."""
        file, start = weights_file(path)
        context = context_of(file.name)
        if is_ggmf(start):
            found = read_ggmf(file)
            tensors: dict[str, torch.Tensor] = {
                name: torch.from_numpy(array) for name, array in arrays_of(found).items()
            }
            return cls(file, tensors, found.quantization, _matrix_type(tensors), True, context)
        tensors, metadata = _read_safetensors(file if is_safetensors(start) else as_safetensors(file, extra="rwkv"))
        if "_strategy" in json.loads(metadata.get(LEFT_OUT, "[]")):
            raise ModelFileError(
                f"{file} was converted for a strategy of the rwkv package, which rearranged its weights. "
                "Give the original .pth of the model."
            )
        stored = _matrix_type(tensors)
        name = _TYPES.get(str(stored).removeprefix("torch."), str(stored))
        return cls(file, tensors, name, stored, False, context)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def weights(self, device: torch.device, dtype: torch.dtype) -> Weights:
        """The weights, to be read for a device and with matrices of a number type."""
        if not self.of_rwkv_cpp:
            return Weights(self.file, self.tensors, device, dtype)
        return Weights(self.file, self.tensors, device, dtype, decay_is_done=True, norm_epsilon=_GGML_EPSILON)


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors, mapped where the system offers it, and the metadata. Raises ModelFileError."""
    try:
        opened: Any = safe_open(path, "pt")
        with opened as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ModelFileError(
            f"{path} is not a sound safetensors file: {error}. It is truncated or damaged: fetch it again."
        ) from error


def _matrix_type(tensors: Mapping[str, torch.Tensor]) -> torch.dtype:
    found = tensors.get("head.weight")
    return torch.float32 if found is None else found.dtype
