"""What a model's folder says of it: the transformers library's layout, ChatGLM's, LitGPT's and Lit-LLaMA's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from local_llms.hub.file_facts import FileFacts, main_type
from local_llms.hub.folder_template import chat_template_of, template_of_kind
from local_llms.hub.outline import outline_of
from local_llms.hub.pickle_outline import Outline

WEIGHTS = (("model", ".safetensors"), ("pytorch_model", ".bin"))
"""How the transformers library calls weights, in the order in which they are looked for."""
LIT_WEIGHTS = ("lit_model.pth", "lit-llama.pth")
LIT_CONFIGS = ("model_config.yaml", "lit_config.json")
"""Of LitGPT: today's name, and that of 2023."""

_MOST_CONFIG = 1 << 24
_CONTEXTS = ("max_position_embeddings", "n_positions", "seq_length", "max_sequence_length", "max_seq_len", "n_ctx")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_VOCABULARIES = ("padded_vocab_size", "vocab_size")
_LIT_LAYER = re.compile(r"transformer\.h\.(\d{1,4})\.")
_LIT_KINDS = {"LLaMAMLP": "llama", "GptNeoxMLP": "gpt_neox"}
_LIT_LLAMA_CONTEXT = 2048


def facts_of_folder(path: Path) -> FileFacts | None:
    """The facts of a folder with a configuration; None where it is none. Raises ModelFileError and OSError."""
    weights = next((path / name for name in LIT_WEIGHTS if (path / name).is_file()), None)
    if weights is not None:
        return _of_lit(path, weights)
    if not (path / "config.json").is_file():
        return None
    config = read_config(path / "config.json")
    text = config.get("text_config")
    told = text if isinstance(text, dict) else config
    kind = config.get("model_type")
    outline = outline_of_folder(path)
    return FileFacts(
        architecture=kind if isinstance(kind, str) else None,
        parameters=sum(prod(tensor.shape) for tensor in outline.values()),
        layers=_number(told, _LAYERS),
        vocabulary_size=_number(told, _VOCABULARIES),
        quantization=main_type((tensor.type, prod(tensor.shape)) for tensor in outline.values()),
        context_length=_number(told, _CONTEXTS),
        chat_template=chat_template_of(path, read_config(path / "tokenizer_config.json")),
        template=template_of_kind(path, config),
    )


def outline_of_folder(path: Path) -> dict[str, Outline]:
    """The tensors of the weights in a folder by name; of what is missing or damaged, none. Raises OSError."""
    return {name: tensor for file in _files(path) for name, tensor in outline_of(file).items()}


def read_config(path: Path) -> dict[str, Any]:
    """The object in a configuration; an empty one where there is none that can be read."""
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(_MOST_CONFIG))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _files(path: Path) -> Iterator[Path]:
    """The files of weights, or those that an index beside them names."""
    for stem, suffix in WEIGHTS:
        table = read_config(path / f"{stem}{suffix}.index.json").get("weight_map")
        named = {name for name in table.values() if isinstance(name, str)} if isinstance(table, dict) else ()
        names = sorted(name for name in named if Path(name).name == name) or [f"{stem}{suffix}"]
        found = [path / name for name in names if (path / name).is_file()]
        if found:
            yield from found
            return


def _of_lit(path: Path, weights: Path) -> FileFacts:
    outline = outline_of(weights)
    named = next((path / name for name in LIT_CONFIGS if (path / name).is_file()), None)
    told = _lit_config(named) if named is not None else {}
    lit_llama = any(name.endswith(".attn.c_attn.weight") for name in outline)
    kind = told.get("mlp_class_name", told.get("_mlp_class"))
    rows = outline.get("transformer.wte.weight")
    layers = [int(match[1]) for name in outline if (match := _LIT_LAYER.match(name))]
    return FileFacts(
        architecture="llama" if lit_llama else _LIT_KINDS.get(str(kind)),
        parameters=sum(prod(tensor.shape) for tensor in outline.values()),
        layers=1 + max(layers, default=-1),
        vocabulary_size=rows.shape[0] if rows is not None and rows.shape else 0,
        quantization=main_type((tensor.type, prod(tensor.shape)) for tensor in outline.values()),
        context_length=_number(told, ("block_size",)) or (_LIT_LLAMA_CONTEXT if lit_llama else 0),
    )


def _lit_config(path: Path) -> Mapping[str, Any]:
    """The settings that are looked at. Of YAML, those lines: they stand at its top level, one to a line."""
    if path.suffix == ".json":
        return read_config(path)
    with path.open("rb") as file:
        text = file.read(_MOST_CONFIG).decode("utf-8", "replace")
    found: dict[str, Any] = dict(re.findall(r"^(mlp_class_name|_mlp_class): *['\"]?(\w+)", text, re.MULTILINE))
    size = re.search(r"^block_size: *(\d{1,9})\s*$", text, re.MULTILINE)
    return {**found, "block_size": int(size[1])} if size else found


def _number(config: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    """The first whole number above 0 under one of the keys; 0 where there is none."""
    values = (config.get(key) for key in keys)
    return next((value for value in values if type(value) is int and value > 0), 0)
