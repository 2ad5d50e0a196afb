"""The tensors in a file of rwkv.cpp, in the order of the training program.

How the two differ: RWKV/rwkv.cpp:python/convert_pytorch_to_ggml.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from local_llms.errors import MissingDependency
from local_llms.hub.ggmf import GgmfFile, GgmfTensor

_MIXED = "rwkvag"
"""Version 7: what has a mixing of its own, in the order in which one tensor has them all."""
_DIMENSIONS = 3
"""Of a tensor that rwkv.cpp gave one more for ggml's sake."""


def arrays_of(file: GgmfFile) -> dict[str, NDArray[np.generic]]:
    """The tensors by name, in the shapes of the training program; quantized ones as float32.

    Raises MissingDependency where a quantized file needs a library that is missing.
    """
    data = np.memmap(file.path, np.uint8, mode="c")
    stored = {tensor.name: _array(data, tensor) for tensor in file.tensors}
    return dict(_as_trained(stored))


def _array(data: NDArray[np.uint8], tensor: GgmfTensor) -> NDArray[np.generic]:
    part = data[tensor.offset : tensor.offset + tensor.size]
    if tensor.kind.block == 1:
        # Names of any length stand in between, so numbers begin anywhere: a copy puts them where numbers may be.
        return np.array(part).view("<f4" if tensor.kind.name == "F32" else "<f2").reshape(tensor.shape)
    try:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError as error:
        raise MissingDependency("gguf", extra="rwkv", purpose="A quantized file of rwkv.cpp") from error
    rows = part.reshape(*tensor.shape[:-1], -1)
    return np.asarray(dequantize(rows, GGMLQuantizationType[tensor.kind.name]))


def _as_trained(stored: dict[str, NDArray[np.generic]]) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Undo how rwkv.cpp arranges tensors for ggml, where torch's order is another one."""
    sixth, seventh = "blocks.0.att.time_maa_x" in stored, "blocks.0.att.r_k" in stored
    for name, array in stored.items():
        last = name.rsplit(".", 1)[-1]
        if last == "x_rwkvag" and len(array) == len(_MIXED):
            for which, mix in zip(_MIXED, array, strict=True):
                yield name.removesuffix(_MIXED) + which, mix
        elif seventh and last in ("w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2"):
            yield name, array.T
        elif sixth and last == "time_decay":
            yield name, array.reshape(-1)
        elif last in ("time_maa_w1", "time_decay_w1", "time_decay_w2"):
            yield name, array.T
        elif last == "time_maa_w2" and array.ndim == _DIMENSIONS:
            yield name, array.swapaxes(-1, -2)
        elif last in ("time_decay", "time_faaaa", "time_first") and array.ndim == _DIMENSIONS:
            yield name, array[..., 0]
        else:
            yield name, array
