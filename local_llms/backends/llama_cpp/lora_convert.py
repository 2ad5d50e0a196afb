"""From a PEFT folder to the GGUF file that llama.cpp reads, kept in the cache.

Names come from the ``gguf`` package's map. Some architectures are stored in another order than transformers has them,
and an adapter's second matrix must follow: the rows of a LLaMA's queries and keys, and the rows of GPT-NeoX's joined
query, key and value. Where llama.cpp has those three in one matrix and the adapter has three, theirs are joined too.
Facts from llama.cpp's convert_lora_to_gguf.py and convert_hf_to_gguf.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from local_llms.errors import AdapterError, MissingDependency, ModelFileError
from local_llms.hub.derived import keep
from local_llms.hub.gguf import GGUFHeader, TensorInfo
from local_llms.hub.peft import CONFIG, LoraModule, PeftAdapter, read_peft

Matrix = NDArray[np.float32]
Pair = tuple[Matrix, Matrix]
"""A of shape (rank, input) and B of shape (output, rank), so that the change at scale 1 is B A."""

_LAYOUT = 1
"""Of converted files. Another number makes every one anew."""
_AS_STORED = frozenset({"chatglm", "gemma", "gemma2", "gemma3", "phi3", "qwen2", "qwen3"})
"""Architectures whose matrices llama.cpp keeps in the order of transformers."""
_KNOWN = sorted({*_AS_STORED, "gptneox", "llama"})


def converted(path: Path, base: GGUFHeader, weights: Mapping[str, TensorInfo]) -> Path:
    """The GGUF file of a PEFT folder for the model ``base``, whose tensors are ``weights``; made where it is not yet.

    Raises AdapterError that says what does not fit, MissingDependency and DownloadError (no room in the cache).
    """
    adapter = read_peft(path, extra="transformers")
    _check(adapter, base)
    origin = _origin(adapter, base)
    name = f"{path.name}-{origin[:12]}"
    return keep(
        name,
        f"{path.name}.gguf",
        origin,
        lambda: partial(_write, base.architecture, _pairs(adapter, base, weights)),
    )


def _check(adapter: PeftAdapter, base: GGUFHeader) -> None:
    if adapter.whole:
        raise AdapterError(
            f"{adapter.path} also replaces whole weights, {next(iter(adapter.whole))} first, which llama.cpp cannot do "
            "beside a loaded model. Load the model from its safetensors folder with the transformers backend, or merge "
            "the adapter into it and convert the result to GGUF."
        )
    if base.architecture not in _KNOWN:
        raise AdapterError(
            f"A PEFT folder cannot be converted for the architecture {base.architecture!r} of {base.path}; known are "
            f"{', '.join(_KNOWN)}. Convert it with llama.cpp's convert_lora_to_gguf.py and give the GGUF file."
        )


def _origin(adapter: PeftAdapter, base: GGUFHeader) -> str:
    """A digest of all that the converted file depends on."""
    parts: list[object] = [_LAYOUT, base.architecture, _heads(base)]
    parts += sorted((tensor.name, tensor.shape) for tensor in base.tensors)
    for file in (adapter.path / CONFIG, adapter.weights.path):
        status = file.resolve().stat()
        parts += [file.resolve(), status.st_size, status.st_mtime_ns]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _pairs(adapter: PeftAdapter, base: GGUFHeader, weights: Mapping[str, TensorInfo]) -> dict[str, Pair]:
    """The matrices of every changed tensor of the model, by its name."""
    gguf = _library()
    architecture = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}[base.architecture]
    blocks = base.metadata.get(f"{base.architecture}.block_count", 0)
    names = gguf.get_tensor_name_map(architecture, blocks)
    pairs: dict[str, Pair] = {}
    for module, stored in adapter.copies.items():
        own = weights.get(f"{names.get_name(module.removesuffix('.weight'))}.weight")
        if own is not None and own.shape != adapter.weights.tensors[stored].shape[::-1]:
            raise AdapterError(
                f"{adapter.path} has {module} in the shape {adapter.weights.tensors[stored].shape} of another "
                f"vocabulary than that of {base.path}. Merge it into its model and convert the result to GGUF."
            )
    joined: dict[str, dict[str, Pair]] = {}
    for module, lora in adapter.modules.items():
        candidates = (module, f"model.{module}", module.removeprefix("transformer."))
        found = next((mapped for name in candidates if (mapped := names.get_name(name)) is not None), None)
        if found is None:
            raise AdapterError(
                f"{adapter.path} changes {module}, which a model of the architecture {base.architecture!r} does not "
                "have. It was made for another model: give the model that it was trained on."
            )
        pair = _ordered(found, _read(adapter, lora), base)
        block, dot, part = found.rpartition(".attn_")
        whole = f"{block}.attn_qkv"
        if dot and part in ("q", "k", "v") and f"{found}.weight" not in weights and f"{whole}.weight" in weights:
            joined.setdefault(whole, {})[part] = pair
        elif lora.embedding:
            # A row of the embedding is looked up, not multiplied: there the first matrix is stored transposed.
            pairs[f"{found}.weight"] = (pair[0].T, pair[1])
        else:
            pairs[f"{found}.weight"] = pair
    for whole, parts in joined.items():
        pairs[f"{whole}.weight"] = _join(whole, parts, weights[f"{whole}.weight"].shape[1], base)
    return pairs


def _read(adapter: PeftAdapter, lora: LoraModule) -> Pair:
    """The matrices as float32, with the strength in the second one."""
    try:
        a, b = (adapter.weights.read(name).astype(np.float32) for name in (lora.a, lora.b))
    except ModelFileError as error:
        raise AdapterError(str(error)) from error
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise AdapterError(f"{adapter.path} is damaged: {lora.a} or {lora.b} has values that are no numbers.")
    return a, b * np.float32(lora.strength)


def _heads(base: GGUFHeader) -> tuple[int, int]:
    """Heads of the queries, and of the keys and values. Raises AdapterError where they differ between layers."""
    heads = base.metadata.get(f"{base.architecture}.attention.head_count", 0)
    shared = base.metadata.get(f"{base.architecture}.attention.head_count_kv", heads)
    if type(heads) is not int or type(shared) is not int or heads < 1 or shared < 1:
        raise AdapterError(
            f"{base.path} has {heads!r} heads and {shared!r} for keys, which a PEFT folder cannot be converted for. "
            "Convert it with llama.cpp's convert_lora_to_gguf.py and give the GGUF file."
        )
    return heads, shared


def _ordered(name: str, pair: Pair, base: GGUFHeader) -> Pair:
    """The rows of the second matrix in the order that llama.cpp keeps those of the weight in."""
    a, b = pair
    heads, shared = _heads(base)
    if base.architecture == "llama" and name.endswith((".attn_q", ".attn_k")):
        count = heads if name.endswith("q") else shared
        # Rotary pairs lie half a head apart in transformers and side by side here.
        return a, _regrouped(b, (count, 2, -1), name, base)
    if base.architecture == "gptneox" and name.endswith(".attn_qkv"):
        # Query, key and value take turns head by head there, and follow each other as a whole here.
        return a, _regrouped(b, (heads, 3, -1), name, base, swap=(0, 1))
    return pair


def _regrouped(
    b: Matrix, groups: tuple[int, int, int], name: str, base: GGUFHeader, swap: tuple[int, int] = (1, 2)
) -> Matrix:
    """Rows numbered in three digits, two of which change places."""
    if b.shape[0] % (groups[0] * groups[1]):
        raise AdapterError(
            f"The adapter's {name} has {b.shape[0]} rows, which the {groups[0]} heads of {base.path} cannot share. It "
            "was made for another model: give the model that it was trained on."
        )
    return b.reshape(*groups, b.shape[1]).swapaxes(*swap).reshape(b.shape)


def _join(name: str, parts: Mapping[str, Pair], rows: int, base: GGUFHeader) -> Pair:
    """One pair for a matrix that query, key and value lie in one below the other: its rank is the sum of theirs."""
    heads, shared = _heads(base)
    size, left = divmod(rows, heads + 2 * shared)
    starts = {"q": 0, "k": heads * size, "v": (heads + shared) * size}
    lengths = {"q": heads * size, "k": shared * size, "v": shared * size}
    if left or any(b.shape[0] != lengths[part] for part, (_, b) in parts.items()):
        raise AdapterError(
            f"The adapter's parts of {name} do not have the rows of {base.path}. It was made for another model: give "
            "the model that it was trained on."
        )
    joined: Matrix = np.zeros((rows, sum(a.shape[0] for a, _ in parts.values())), np.float32)
    column = 0
    for part, (_, b) in parts.items():
        joined[starts[part] : starts[part] + lengths[part], column : column + b.shape[1]] = b
        column += b.shape[1]
    return np.concatenate([a for a, _ in parts.values()]), joined


def _library() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise MissingDependency("gguf", extra="llama-cpp", purpose="Converting an adapter") from error
    return gguf


def _write(architecture: str, pairs: Mapping[str, Pair], target: Path) -> None:
    """Write the file."""
    writer = _library().GGUFWriter(target, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    for name, (a, b) in pairs.items():
        writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a))
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
