"""Lit-LLaMA's and LitGPT's names of weights in the library's terms, and query, key and value taken apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from local_llms.errors import ModelFileError

if TYPE_CHECKING:
    import torch

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")

_COMMON = {
    "lm_head.weight": "lm_head.weight",
    "transformer.wte.weight": "model.embed_tokens.weight",
}
_LAYERS = "model.layers.{}"

LIT_LLAMA = {
    **_COMMON,
    "transformer.h.{}.attn.c_proj.weight": f"{_LAYERS}.self_attn.o_proj.weight",
    "transformer.h.{}.mlp.c_fc1.weight": f"{_LAYERS}.mlp.gate_proj.weight",
    "transformer.h.{}.mlp.c_fc2.weight": f"{_LAYERS}.mlp.up_proj.weight",
    "transformer.h.{}.mlp.c_proj.weight": f"{_LAYERS}.mlp.down_proj.weight",
    "transformer.h.{}.rms_1.scale": f"{_LAYERS}.input_layernorm.weight",
    "transformer.h.{}.rms_2.scale": f"{_LAYERS}.post_attention_layernorm.weight",
    "transformer.ln_f.scale": "model.norm.weight",
}
LITGPT_LLAMA = {
    **_COMMON,
    "transformer.h.{}.attn.proj.weight": f"{_LAYERS}.self_attn.o_proj.weight",
    "transformer.h.{}.mlp.fc_1.weight": f"{_LAYERS}.mlp.gate_proj.weight",
    "transformer.h.{}.mlp.fc_2.weight": f"{_LAYERS}.mlp.up_proj.weight",
    "transformer.h.{}.mlp.proj.weight": f"{_LAYERS}.mlp.down_proj.weight",
    "transformer.h.{}.norm_1.weight": f"{_LAYERS}.input_layernorm.weight",
    "transformer.h.{}.norm_2.weight": f"{_LAYERS}.post_attention_layernorm.weight",
    "transformer.ln_f.weight": "model.norm.weight",
}
_NEOX = "gpt_neox.layers.{}"
LITGPT_NEOX = {
    "lm_head.weight": "embed_out.weight",
    "transformer.wte.weight": "gpt_neox.embed_in.weight",
    **{
        f"transformer.h.{{}}.{theirs}.{kind}": f"{_NEOX}.{ours}.{kind}"
        for kind in ("weight", "bias")
        for theirs, ours in {
            "norm_1": "input_layernorm",
            "norm_2": "post_attention_layernorm",
            "attn.proj": "attention.dense",
            "mlp.fc": "mlp.dense_h_to_4h",
            "mlp.proj": "mlp.dense_4h_to_h",
        }.items()
    },
    "transformer.ln_f.weight": "gpt_neox.final_layer_norm.weight",
    "transformer.ln_f.bias": "gpt_neox.final_layer_norm.bias",
}


def renamed(
    tensors: Mapping[str, torch.Tensor], names: Mapping[str, str], heads: int, groups: int, size: int, path: Path
) -> dict[str, torch.Tensor]:
    """The weights of a llama model. ``groups``: key-value heads; ``size``: of a head. Raises ModelFileError."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        template, layer = _template(name)
        part = template.removeprefix("transformer.h.{}.attn.").removesuffix(".weight")
        if part in ("c_attn", "qkv", "attn"):
            pieces = _taken_apart(tensor, part, heads, groups, size, path)
            for letter, piece in zip("qkv", pieces, strict=True):
                found[f"model.layers.{layer}.self_attn.{letter}_proj.weight"] = piece
        elif template in names:
            found[names[template].format(layer)] = tensor
    return found


def neox_tensors(
    tensors: Mapping[str, torch.Tensor], names: Mapping[str, str], heads: int, size: int, path: Path
) -> dict[str, torch.Tensor]:
    """The weights of a GPT-NeoX model, which keeps query, key and value of a head side by side."""
    import torch

    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        template, layer = _template(name)
        part, _, kind = template.removeprefix("transformer.h.{}.attn.").rpartition(".")
        if part == "attn":
            found[f"gpt_neox.layers.{layer}.attention.query_key_value.{kind}"] = tensor
        elif part == "qkv":
            _check(tensor, 3 * heads * size, path)
            by_head = [piece.reshape(heads, size, *tensor.shape[1:]) for piece in torch.split(tensor, heads * size)]
            whole = torch.stack(by_head, 1).reshape(tensor.shape).contiguous()
            found[f"gpt_neox.layers.{layer}.attention.query_key_value.{kind}"] = whole
        elif template in names:
            found[names[template].format(layer)] = tensor
    return found


def _template(name: str) -> tuple[str, str]:
    """A name with {} for the layer's number, and that number."""
    numbers = _NUMBER.findall(name)
    return _NUMBER.sub("{}", name, count=1), numbers[0] if numbers else ""


def _taken_apart(
    tensor: torch.Tensor, part: str, heads: int, groups: int, size: int, path: Path
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value of one matrix: in a row (``qkv``, ``c_attn``), or by groups of heads (``attn``)."""
    import torch

    rows = [heads * size, groups * size, groups * size]
    _check(tensor, sum(rows), path)
    if part == "attn":
        by_group = tensor.reshape(groups, -1, tensor.shape[1])
        parts = torch.split(by_group, [heads // groups * size, size, size], dim=1)
        query, key, value = (piece.reshape(-1, tensor.shape[1]).contiguous() for piece in parts)
        return query, key, value
    query, key, value = (piece.contiguous() for piece in torch.split(tensor, rows))
    if part == "c_attn":
        # Lit-LLaMA rotates neighbours, as Meta's code does; the library rotates the halves of a head.
        query, key = (_halves(piece, heads, size) for piece in (query, key))
    return query, key, value


def _halves(matrix: torch.Tensor, heads: int, size: int) -> torch.Tensor:
    """The rows of each head with the first of all pairs in front, and the second ones behind them."""
    pairs = matrix.reshape(heads, size // 2, 2, matrix.shape[1])
    return pairs.transpose(1, 2).reshape(matrix.shape).contiguous()


def _check(tensor: torch.Tensor, rows: int, path: Path) -> None:
    if tensor.shape[0] != rows:
        raise ModelFileError(
            f"{path}: query, key and value have {tensor.shape[0]} rows together, and the configuration speaks of "
            f"{rows}. They do not belong together."
        )
