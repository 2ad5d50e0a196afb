"""A checkpoint's config.json, as a configuration of the transformers library that can run nothing.

Code in the folder (``auto_map``), attention or kernel implementations by name, and files to load from elsewhere are
taken out, so that they change nothing. What is left are numbers and names of the architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local_llms.backends.transformers.files import ids_of, number, read_json, read_json_if_there
from local_llms.errors import ModelFileError, UnsupportedFeature

_LEFT_OUT = frozenset(
    {
        "attn_implementation",
        "auto_map",
        "custom_generate",
        "custom_pipelines",
        "experts_implementation",
        "extra_files",
        "fusion_config",
        "kernel_config",
        "name_or_path",
        "torchscript",
        "transformers_weights",
        "use_kernels",
    }
)
_FLOATS = ("Infinity", "-Infinity", "NaN")
"""What JSON has no numbers for, and the library writes as {"__float__": "Infinity"}."""
_DAMAGE = (TypeError, ValueError, AttributeError, KeyError, ZeroDivisionError, OverflowError)
"""What the library raises for settings that cannot be, beside errors of its own."""

_LARGEST = 1 << 20
"""The largest number of heads, layers and hidden sizes that is believed."""

_LAYERS = 1 << 10
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "n_embd",
    "n_head",
    "n_inner",
    "num_attention_heads",
    "num_experts",
    "num_key_value_heads",
    "num_local_experts",
    "head_dim",
)
_CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")


def clean(value: Any) -> Any:
    """A configuration without what could load or run something, at any depth."""
    if isinstance(value, Mapping):
        if value.get("__float__") in _FLOATS:
            return float(value["__float__"])
        return {
            key: clean(item) for key, item in value.items() if key not in _LEFT_OUT and not str(key).startswith("_")
        }
    return [clean(item) for item in value] if isinstance(value, list) else value


def read_config(folder: Path) -> dict[str, Any]:
    """The cleaned config.json of a folder. Raises ModelFileError, and UnsupportedFeature for quantized weights."""
    path = folder / "config.json"
    config: dict[str, Any] = clean(read_json(path))
    if not isinstance(config.get("model_type"), str):
        raise ModelFileError(f"{path} is damaged: it does not name a model_type. Fetch it again.")
    if config.pop("quantization_config", None) is not None:
        raise UnsupportedFeature(
            f"{folder} holds weights that were quantized already. Load the original ones, and quantize them with "
            'quantization="int4" or "int8".'
        )
    for part in (config, _text(config)):
        for key in _SIZES:
            if part.get(key) is not None:
                number(part, key, path, most=_LARGEST)
        for key in ("num_hidden_layers", "n_layer"):
            if part.get(key) is not None:
                number(part, key, path, most=_LAYERS)
        if part.get("vocab_size") is not None:
            number(part, "vocab_size", path, most=_LARGEST << 4)
    return config


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part about text of a model that has several parts; empty for an ordinary one."""
    part = config.get("text_config")
    return part if isinstance(part, dict) else {}


def layers_of(config: Mapping[str, Any]) -> int:
    """Layers that a configuration speaks of; 0 where it does not say."""
    text = _text(config) or config
    return int(text.get("num_hidden_layers") or text.get("n_layer") or 0)


def context_of(config: Mapping[str, Any]) -> int | None:
    """The context length that a model was trained with; None where its configuration does not say."""
    text = _text(config) or config
    for key in _CONTEXTS:
        value = text.get(key)
        if type(value) is int and value > 0:
            return value
    return None


def end_ids_of(folder: Path, config: Mapping[str, Any]) -> frozenset[int]:
    """Tokens that end an answer, as generation_config.json and config.json name them."""
    generation = read_json_if_there(folder / "generation_config.json")
    named = (part.get("eos_token_id") for part in (generation, config, _text(config)))
    return frozenset().union(*(ids_of(value) for value in named))


def library_config(config: dict[str, Any], path: Path) -> Any:
    """The library's object. Raises UnsupportedFeature for an architecture it does not know, ModelFileError."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    kind = config["model_type"]
    if kind not in CONFIG_MAPPING:
        raise UnsupportedFeature(
            f"{path}: the installed transformers library has no architecture {kind!r}, and code from a model's folder "
            "is never run. Look for a version of the model in a format that is known, such as GGUF."
        )
    try:
        return CONFIG_MAPPING[kind].from_dict(config)
    except (StrictDataclassError, *_DAMAGE) as error:
        raise ModelFileError(f"{path} is damaged: {first_line(error)}. Fetch it again.") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its name."""
    return str(error).strip().split("\n", 1)[0][:300] or type(error).__name__
