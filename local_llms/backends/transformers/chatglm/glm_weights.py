"""ChatGLM2, ChatGLM3 and GLM-4, whose blocks are those of the transformers library's ``GlmForCausalLM``.

Only names differ, and that query, key and value lie in one matrix, one after the other (``SelfAttention`` in
``modeling_chatglm.py`` of THUDM/chatglm2-6b; huggingface/transformers: ``models/glm/convert_glm_weights_to_hf.py``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_llms.backends.transformers.files import number
from local_llms.errors import ModelFileError, UnsupportedFeature

if TYPE_CHECKING:
    import torch

ROTARY_BASE = 10_000.0

_NAMES = {
    "transformer.embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "transformer.encoder.final_layernorm.weight": "model.norm.weight",
    "transformer.output_layer.weight": "lm_head.weight",
}
_LAYER = re.compile(r"transformer\.encoder\.layers\.(\d+)\.(.+)")
_IN_LAYER = {
    "input_layernorm.weight": "input_layernorm.weight",
    "post_attention_layernorm.weight": "post_attention_layernorm.weight",
    "self_attention.dense.weight": "self_attn.o_proj.weight",
    "mlp.dense_h_to_4h.weight": "mlp.gate_up_proj.weight",
    "mlp.dense_4h_to_h.weight": "mlp.down_proj.weight",
}
_TOGETHER = "self_attention.query_key_value."
_NEEDED = {
    "add_bias_linear": False,
    "apply_residual_connection_post_layernorm": False,
    "original_rope": True,
    "post_layer_norm": True,
    "rmsnorm": True,
}
"""What the library's blocks are like; a checkpoint that is not cannot be mapped."""


def glm_config(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A ``config.json`` of these models as one of the library's Glm.

    Raises ModelFileError for sizes that cannot be, UnsupportedFeature for a variant that the library does not have.
    """
    for key, needed in _NEEDED.items():
        if config.get(key, needed) is not needed:
            raise UnsupportedFeature(f"{path}: {key} is {config[key]!r}; only models with {needed!r} can be run.")
    heads = number(config, "num_attention_heads", path)
    groups = number(config, "multi_query_group_num", path) if config.get("multi_query_attention") is True else heads
    hidden = number(config, "hidden_size", path)
    ratio, epsilon = config.get("rope_ratio", 1), config.get("layernorm_epsilon", 1e-5)
    for key, value in (("rope_ratio", ratio), ("layernorm_epsilon", epsilon)):
        if not isinstance(value, (int, float)) or not 0 < value < 1e9:
            raise ModelFileError(f"{path} is damaged: {key} is {value!r}.")
    if heads % groups:
        raise ModelFileError(f"{path} is damaged: {heads} heads cannot share {groups} groups of keys and values.")
    rotary = {"rope_type": "default", "rope_theta": ROTARY_BASE * ratio, "partial_rotary_factor": 0.5}
    return {
        "model_type": "glm",
        "vocab_size": number(config, "padded_vocab_size", path),
        "hidden_size": hidden,
        "intermediate_size": number(config, "ffn_hidden_size", path),
        "num_hidden_layers": number(config, "num_layers", path, most=1 << 10),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": number(config, "kv_channels", path) if "kv_channels" in config else hidden // heads,
        "attention_bias": config.get("add_qkv_bias") is True,
        "max_position_embeddings": number(config, "seq_length", path),
        "rms_norm_eps": epsilon,
        "rope_parameters": rotary,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.get("tie_word_embeddings") is True,
        # The library's defaults are ids of GLM-4; this backend has its own from the tokenizer.
        "pad_token_id": None,
        "eos_token_id": None,
    }


def glm_tensors(
    tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], path: Path
) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights under the library's names; ``config`` is what ``glm_config`` gave. Raises ModelFileError.

    Nothing is copied: query, key and value are views of one matrix.
    """
    rows = _rows(config)
    for name, tensor in tensors.items():
        if _TOGETHER in name and tensor.shape[:1] != (sum(rows.values()),):
            raise ModelFileError(
                f"{path} is damaged: {name} has the shape {tuple(tensor.shape)}, and config.json speaks of "
                f"{sum(rows.values())} rows. Fetch it again."
            )
        for target, part in _targets(name, rows):
            yield target, tensor[part]


def glm_modules(config: Mapping[str, Any]) -> Callable[[str], Sequence[tuple[str, slice]]]:
    """A module's name in the original → those of the library's modules, and their rows of its output.

    For adapters that were trained on the original: ``lora.Targets``. A name that is unknown stays as it is.
    """
    rows = _rows(config)

    def targets(name: str) -> Sequence[tuple[str, slice]]:
        found = _targets(f"{name}.weight", rows)
        return [(target.removesuffix(".weight"), part) for target, part in found] or [(name, slice(None))]

    return targets


def _rows(config: Mapping[str, Any]) -> dict[str, int]:
    """Rows of query, key and value, in their order in the one matrix."""
    size, heads, groups = (config[key] for key in ("head_dim", "num_attention_heads", "num_key_value_heads"))
    return {"q_proj": heads * size, "k_proj": groups * size, "v_proj": groups * size}


def _targets(name: str, rows: Mapping[str, int]) -> list[tuple[str, slice]]:
    """The library's names for a weight, and which of its rows each has; [] for one that the library does not need."""
    if name in _NAMES:
        return [(_NAMES[name], slice(None))]
    match = _LAYER.fullmatch(name)
    if match is None:
        return []
    layer, rest = f"model.layers.{match[1]}.", match[2]
    if rest in _IN_LAYER:
        return [(layer + _IN_LAYER[rest], slice(None))]
    if not rest.startswith(_TOGETHER):
        return []
    kind = rest.removeprefix(_TOGETHER)
    query, key = rows["q_proj"], rows["q_proj"] + rows["k_proj"]
    parts = (slice(query), slice(query, key), slice(key, None))
    return [(f"{layer}self_attn.{part}.{kind}", place) for part, place in zip(rows, parts, strict=True)]
