"""Writes small RWKV checkpoints with random weights, in every version and format."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

WIDTH, HEADS, LAYERS, VOCABULARY = 64, 2, 2, 256
VERSIONS = ("4", "5", "5.1", "5.2", "6", "7")

Tensors = dict[str, torch.Tensor]


def make(
    version: str,
    *,
    vocabulary: int = VOCABULARY,
    layers: int = LAYERS,
    width: int = WIDTH,
    heads: int = HEADS,
    hidden: int = 96,
    seed: int = 1,
) -> Tensors:
    """The tensors of a model, named and shaped as the training program stores them."""
    chance = torch.Generator().manual_seed(seed)
    size = width // heads

    def normal(*shape: int, scale: float = 0.3) -> torch.Tensor:
        return torch.randn(*shape, generator=chance) * scale

    def decay(*shape: int) -> torch.Tensor:
        # Some channels forget at once, and most remember for dozens of tokens.
        return normal(*shape, scale=1.5) - 3

    def share(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=chance)

    def norm(name: str) -> Tensors:
        return {f"{name}.weight": 1 + normal(width, scale=0.1), f"{name}.bias": normal(width, scale=0.1)}

    tensors = {"emb.weight": normal(vocabulary, width), **norm("blocks.0.ln0")}
    for layer in range(layers):
        block, att, ffn = f"blocks.{layer}.", f"blocks.{layer}.att.", f"blocks.{layer}.ffn."
        tensors |= norm(f"{block}ln1") | norm(f"{block}ln2")
        matrices = ["key", "value", "receptance", "output"]
        if version in ("5.1", "5.2", "6"):
            matrices.append("gate")
        tensors |= {f"{att}{name}.weight": normal(width, width) for name in matrices}
        if version != "4":
            tensors |= norm(f"{att}ln_x")
        if version == "7":
            tensors |= {f"{att}x_{name}": share(1, 1, width) for name in "rwkvag"}
            for name, rank in (("w", 32), ("a", 32), ("v", 32), ("g", 64)):
                tensors |= {f"{att}{name}1": normal(width, rank), f"{att}{name}2": normal(rank, width)}
                if name != "g":
                    tensors[f"{att}{name}0"] = decay(1, 1, width) if name == "w" else normal(1, 1, width)
            tensors |= {f"{att}k_k": share(1, 1, width), f"{att}k_a": share(1, 1, width)}
            tensors[f"{att}r_k"] = normal(heads, size)
            tensors[f"{ffn}x_k"] = share(1, 1, width)
        elif version == "6":
            tensors |= {f"{att}time_maa_{name}": share(1, 1, width) for name in "xwkvrg"}
            tensors |= {f"{att}time_maa_w1": normal(width, 160), f"{att}time_maa_w2": normal(5, 32, width)}
            tensors |= {f"{att}time_decay_w1": normal(width, 32), f"{att}time_decay_w2": normal(32, width)}
            tensors |= {f"{att}time_decay": decay(1, 1, width), f"{att}time_faaaa": normal(heads, size)}
            tensors |= {f"{ffn}time_maa_k": share(1, 1, width), f"{ffn}time_maa_r": share(1, 1, width)}
        else:
            mixed = "kvrg" if version in ("5.1", "5.2") else "kvr"
            tensors |= {f"{att}time_mix_{name}": share(1, 1, width) for name in mixed}
            tensors |= {f"{ffn}time_mix_{name}": share(1, 1, width) for name in "kr"}
            shape = {"4": (width,), "5.2": (heads, size)}.get(version, (heads,))
            bonus = "time_faaaa" if version == "5.2" else "time_first"
            tensors |= {f"{att}time_decay": decay(*shape), f"{att}{bonus}": normal(*shape)}
        if version != "7":
            tensors[f"{ffn}receptance.weight"] = normal(width, width)
        tensors |= {f"{ffn}key.weight": normal(hidden, width), f"{ffn}value.weight": normal(width, hidden)}
    return {**tensors, **norm("ln_out"), "head.weight": normal(vocabulary, width)}


def write_pth(path: Path, tensors: Tensors, dtype: torch.dtype | None = None) -> Path:
    torch.save({name: tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()}, path)
    return path


def write_safetensors(path: Path, tensors: Tensors, dtype: torch.dtype | None = None) -> Path:
    save_file({name: tensor.to(dtype or tensor.dtype).contiguous() for name, tensor in tensors.items()}, path)
    return path


NUMBERS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 7, "Q5_1": 8, "Q8_0": 9}
_TRANSPOSED_6 = ("time_maa_w1", "time_decay_w1", "time_decay_w2")
_TRANSPOSED_7 = ("w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2")
_KEPT_EXACT = (".time_", ".k_k", ".k_a", ".r_k", ".x_rwkvag", ".x_k", ".w0", ".a0", ".v0")


def write_ggmf(path: Path, tensors: Tensors, kind: str = "F32", *, file_version: int = 101) -> Path:
    """As RWKV/rwkv.cpp:python/convert_pytorch_to_ggml.py and its quantizer arrange it."""
    arranged = arrange(tensors)
    vocabulary, width = tensors["emb.weight"].shape
    layers = sum(name.endswith(".ln1.weight") for name in tensors)
    parts = [struct.pack("<6I", 0x67676D66, file_version, vocabulary, width, layers, NUMBERS[kind])]
    for name, array in arranged.items():
        stored, data = _stored(name, array, kind)
        key = name.encode()
        parts.append(struct.pack("<3I", array.ndim, len(key), NUMBERS[stored]))
        parts.append(struct.pack(f"<{array.ndim}I", *reversed(array.shape)))
        parts += [key, data]
    path.write_bytes(b"".join(parts))
    return path


def _stored(name: str, array: np.ndarray, kind: str) -> tuple[str, bytes]:
    if array.ndim != 2 or kind == "F32" or any(part in name for part in _KEPT_EXACT):
        return "F32", array.tobytes()
    if kind == "F16" or name in ("emb.weight", "head.weight"):
        return "F16", array.astype(np.float16).tobytes()
    import gguf

    return kind, gguf.quants.quantize(array, gguf.GGMLQuantizationType[kind]).tobytes()


def arrange(tensors: Tensors) -> dict[str, np.ndarray]:
    """Tensors in the shapes that files of rwkv.cpp have."""
    sixth, seventh = "blocks.0.att.time_maa_x" in tensors, "blocks.0.att.r_k" in tensors
    fifth = not sixth and not seventh and "blocks.0.att.ln_x.weight" in tensors
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.float()
        last = name.rsplit(".", 1)[-1]
        if ".time_" in name:
            value = value.squeeze()
        if seventh and ".att.x_" in name:
            mixed = name[: name.index(".x_")] + ".x_rwkvag"
            found[mixed] = torch.cat([found[mixed], value]) if mixed in found else value
            continue
        if last in (_TRANSPOSED_7 if seventh else _TRANSPOSED_6 if sixth else ()):
            value = value.T
        elif sixth and last == "time_maa_w2":
            value = value.transpose(1, 2)
        elif sixth and last == "time_faaaa":
            value = value.unsqueeze(-1)
        elif sixth and last == "time_decay":
            value = value.reshape(HEADS, -1, 1)
        elif fifth and last == "time_decay":
            value = torch.exp(-torch.exp(value)).reshape(HEADS, -1, 1)
        elif fifth and last == "time_first":
            value = torch.exp(value).reshape(HEADS, 1, 1)
        elif fifth and last == "time_faaaa":
            value = value.unsqueeze(-1)
        elif last == "time_decay":
            value = -torch.exp(value)
        found[name] = value
    return {name: np.ascontiguousarray(value.numpy()) for name, value in found.items()}


def changed(tensors: Mapping[str, torch.Tensor], **changes: torch.Tensor | None) -> Tensors:
    """A copy with tensors replaced, or taken out where None is given; dots in names are written as double bars."""
    copy = dict(tensors)
    for name, value in changes.items():
        key = name.replace("__", ".")
        copy.pop(key, None)
        if value is not None:
            copy[key] = value
    return copy
