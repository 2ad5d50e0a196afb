"""Checkpoints of Lit-LLaMA and of LitGPT: ``lit_model.pth`` and, for LitGPT, ``model_config.yaml``.

They become the library's llama or GPT-NeoX models by renaming. Names and layouts of the weights: Lightning-AI/lit-llama
(lit_llama/model.py, scripts/convert_checkpoint.py), Lightning-AI/litgpt (litgpt/scripts/convert_lit_checkpoint.py; its
older form with ``attn.attn``: lit_gpt/model.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_llms.backends.base import LoadOptions
from local_llms.backends.transformers.files import CONFIG_BYTES, number, read_bytes, read_json
from local_llms.backends.transformers.folder import assemble
from local_llms.backends.transformers.lit_names import LIT_LLAMA, LITGPT_LLAMA, LITGPT_NEOX, neox_tensors, renamed
from local_llms.backends.transformers.parts import Parts, Vocabulary
from local_llms.backends.transformers.vocabularies import vocabulary_of
from local_llms.backends.transformers.weights import EXTRA, Weights
from local_llms.errors import ModelFileError, UnsupportedFeature
from local_llms.hub.folder_facts import LIT_CONFIGS, LIT_WEIGHTS
from local_llms.hub.pickles import as_safetensors

if TYPE_CHECKING:
    import torch

_HEADS = {4096: 32, 5120: 40, 6656: 52, 8192: 64}
"""Size → heads of the models that Lit-LLaMA knows; its checkpoints do not say it."""

_LAYER = re.compile(r"^transformer\.h\.(\d+)\.")


def claims(path: Path) -> str | None:
    """A folder with one of their weight files."""
    name = next((name for name in LIT_WEIGHTS if (path / name).is_file()), None)
    return None if name is None else f"it is a folder with {name}"


def load(path: Path, options: LoadOptions) -> Parts:
    """Read a checkpoint. Raises ModelFileError, OptionError, UnsupportedFeature and MissingDependency."""
    file = next(path / name for name in LIT_WEIGHTS if (path / name).is_file())
    weights = Weights([as_safetensors(file, extra=EXTRA)])
    tensors = weights.tensors()
    named = next((path / name for name in LIT_CONFIGS if (path / name).is_file()), None)
    if any(name.endswith(".attn.c_attn.weight") for name in tensors):
        config, found = _lit_llama(file, tensors, _read(named) if named is not None else {})
    elif named is None:
        raise ModelFileError(f"{path} has no {LIT_CONFIGS[0]}, which describes the model. Fetch it again.")
    else:
        config, found = _litgpt(named, tensors, _read(named))
    return assemble(path, config, found, _tokenizer(path), options, stored=weights.dtype)


def _tokenizer(path: Path) -> Vocabulary:
    """In the folder; Lit-LLaMA keeps one for all sizes in the folder above."""
    there = any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))
    return vocabulary_of(path if there or not (path.parent / "tokenizer.model").is_file() else path.parent)


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".json":
        return read_json(path)
    import yaml

    data = read_bytes(path, CONFIG_BYTES)
    try:
        value = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged: {str(error).splitlines()[0]}. Fetch it again.") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path} is damaged: it holds no settings by name. Fetch it again.")
    return value


def _real(told: Mapping[str, Any], key: str, default: float, path: Path) -> float:
    try:
        # In YAML, a number like 1e-05 without a dot is a text.
        value = float(told.get(key, default))
    except (TypeError, ValueError):
        value = 0.0
    if not 0 < value < 1e12:
        raise ModelFileError(f"{path} is damaged: {key} is {told.get(key)!r}. Fetch it again.")
    return value


def _shape(tensors: Mapping[str, torch.Tensor], name: str, path: Path) -> tuple[int, int]:
    tensor = tensors.get(name)
    if tensor is None or tensor.dim() != 2:
        raise ModelFileError(f"{path} is damaged: it has no matrix {name}. Fetch it again.")
    return int(tensor.shape[0]), int(tensor.shape[1])


def _layers(tensors: Mapping[str, torch.Tensor]) -> int:
    return 1 + max((int(match[1]) for match in map(_LAYER.match, tensors) if match), default=-1)


def _lit_llama(
    path: Path, tensors: Mapping[str, torch.Tensor], told: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Configuration and weights of a Lit-LLaMA checkpoint. It tells neither the heads nor the context."""
    vocabulary, size = _shape(tensors, "transformer.wte.weight", path)
    heads = number(told, "n_head", path) if "n_head" in told else _HEADS.get(size)
    if heads is None or size % heads:
        raise ModelFileError(
            f"{path} does not tell how many heads a model of size {size} has. Put a lit_config.json with n_head beside "
            "it."
        )
    config = {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": size,
        "intermediate_size": _shape(tensors, "transformer.h.0.mlp.c_fc1.weight", path)[0],
        "num_hidden_layers": _layers(tensors),
        "num_attention_heads": heads,
        "max_position_embeddings": number(told, "block_size", path) if "block_size" in told else 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }
    return config, renamed(tensors, LIT_LLAMA, heads, heads, size // heads, path)


def _litgpt(
    path: Path, tensors: Mapping[str, torch.Tensor], told: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Configuration and weights of a LitGPT checkpoint."""
    kind = told.get("mlp_class_name", told.get("_mlp_class"))
    if told.get("rope_condense_ratio", 1) != 1 or told.get("rope_adjustments"):
        raise UnsupportedFeature(f"{path} stretches its positions, which is not read from LitGPT. {_ELSEWHERE}")
    size, heads, layers = (number(told, key, path) for key in ("n_embd", "n_head", "n_layer"))
    groups = number(told, "n_query_groups", path) if told.get("n_query_groups") is not None else heads
    head = number(told, "head_size", path) if told.get("head_size") is not None else size // heads
    common = {
        "vocab_size": _shape(tensors, "transformer.wte.weight", path)[0],
        "hidden_size": size,
        "intermediate_size": number(told, "intermediate_size", path),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": number(told, "block_size", path),
        "tie_word_embeddings": False,
    }
    if heads % groups:
        raise ModelFileError(f"{path} is damaged: {heads} heads cannot share {groups} groups. Fetch it again.")
    theta, epsilon = _real(told, "rope_base", 10000.0, path), _real(told, "norm_eps", 1e-5, path)
    partial = _real(told, "rotary_percentage", 0.25, path)
    if kind == "LLaMAMLP" and told.get("norm_class_name", told.get("_norm_class")) == "RMSNorm" and partial == 1.0:
        config = {
            **common,
            "model_type": "llama",
            "num_key_value_heads": groups,
            "head_dim": head,
            "rms_norm_eps": epsilon,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
            "attention_bias": False,
        }
        return config, renamed(tensors, LITGPT_LLAMA, heads, groups, head, path)
    if kind == "GptNeoxMLP" and groups == heads and not told.get("shared_attention_norm"):
        config = {
            **common,
            "model_type": "gpt_neox",
            "layer_norm_eps": epsilon,
            "use_parallel_residual": bool(told.get("parallel_residual", True)),
            "rope_parameters": {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": partial},
        }
        return config, neox_tensors(tensors, LITGPT_NEOX, heads, head, path)
    raise UnsupportedFeature(
        f"{path} is of the kind {told.get('name') or kind!r}, and llama and GPT-NeoX are read. {_ELSEWHERE}"
    )


_ELSEWHERE = "Convert it with litgpt convert_from_litgpt."
