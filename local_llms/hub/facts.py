"""What a model's files say of it, found without loading it: from headers and configuration, never from weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from local_llms.errors import ModelFileError
from local_llms.hub.folder_template import chat_template_of, template_of_kind
from local_llms.hub.ggml import GGMLHeader, GGMLTensor, probe
from local_llms.hub.ggml_check import check_ggml
from local_llms.hub.gguf import GGUFHeader, TensorInfo
from local_llms.hub.gguf_check import check_gguf
from local_llms.hub.gguf_template import jinja_of, template_name

_MOST_CONFIG = 1 << 20
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "seq_length", "max_sequence_length", "context_length")


@dataclass(frozen=True, slots=True)
class FileFacts:
    """None, "" or 0 where the files do not tell.

    ``chat_template``: the Jinja text that they carry. ``template``: the catalog's name of the template that a model of
    this kind was trained with.
    """

    architecture: str | None = None
    parameters: int = 0
    quantization: str | None = None
    context_length: int = 0
    embeds: bool = False
    licence: str | None = None
    chat_template: str | None = None
    template: str | None = None


def facts_of(path: Path) -> FileFacts:
    """The facts of a file or folder; none of a kind that says nothing. Raises ModelFileError for a damaged one."""
    if path.is_dir():
        return _of_folder(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error
    if start[:4] == b"GGUF":
        return _of_gguf(check_gguf(path))
    return _of_ggml(check_ggml(path)) if probe(start) else FileFacts()


def _of_gguf(header: GGUFHeader) -> FileFacts:
    context = header.metadata.get(f"{header.architecture}.context_length")
    licence = header.metadata.get("general.license")
    return FileFacts(
        architecture=header.architecture,
        parameters=header.parameters,
        quantization=_main_type(header.tensors),
        context_length=context if isinstance(context, int) else 0,
        embeds=f"{header.architecture}.pooling_type" in header.metadata,
        licence=licence if isinstance(licence, str) else None,
        chat_template=jinja_of(header),
        template=template_name(header),
    )


def _of_ggml(header: GGMLHeader) -> FileFacts:
    return FileFacts(
        architecture=header.kind,
        parameters=header.parameters,
        quantization=_main_type(header.tensors),
        context_length=header.numbers.get("context", 0),
    )


def _of_folder(path: Path) -> FileFacts:
    config = _json(path / "config.json")
    lengths: list[Any] = [config.get(key) for key in _CONTEXT_KEYS]
    kind = config.get("model_type")
    return FileFacts(
        architecture=kind if isinstance(kind, str) else None,
        context_length=next((length for length in lengths if type(length) is int and length > 0), 0),
        chat_template=chat_template_of(path, _json(path / "tokenizer_config.json")),
        template=template_of_kind(path, config),
    )


def _json(path: Path) -> dict[str, Any]:
    """The object in a configuration; an empty one where there is none that can be read."""
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(_MOST_CONFIG))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _main_type(tensors: Iterable[TensorInfo | GGMLTensor]) -> str | None:
    """The type that most weights have."""
    weights: Counter[str] = Counter()
    for tensor in tensors:
        weights[tensor.type.name] += prod(tensor.shape)
    return weights.most_common(1)[0][0] if weights else None
