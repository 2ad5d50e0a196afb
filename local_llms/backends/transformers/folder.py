"""The layout of the transformers library itself: config.json, tokenizer.json, and weights as safetensors or pickles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_llms.backends.base import LoadOptions
from local_llms.backends.transformers.config import clean, end_ids_of, read_config
from local_llms.backends.transformers.files import read_json
from local_llms.backends.transformers.parts import Parts, Vocabulary
from local_llms.backends.transformers.vocabularies import vocabulary_of
from local_llms.backends.transformers.weights import Weights, has_weights, weight_files
from local_llms.errors import ModelFileError

if TYPE_CHECKING:
    import torch

_GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How the library's classes of models that write text end."""


def claims(path: Path) -> str | None:
    """A folder whose config.json names a class of the library that writes text, with weights beside it."""
    config = path / "config.json"
    if not config.is_file() or not has_weights(path):
        return None
    try:
        named = read_json(config).get("architectures")
    except ModelFileError:
        return "it is a folder with a config.json and weights"
    names = named if isinstance(named, list) else []
    if names and not str(names[0]).endswith(_GENERATES):
        return None
    return "it is a folder with a config.json and weights"


def load(path: Path, options: LoadOptions) -> Parts:
    """Read a folder. Raises ModelFileError, OptionError, UnsupportedFeature and MissingDependency."""
    config = read_config(path)
    weights = Weights(weight_files(path))
    return assemble(
        path,
        config,
        weights.tensors(),
        vocabulary_of(path),
        options,
        stored=weights.dtype,
        end_ids=end_ids_of(path, config),
    )


def assemble(
    path: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    vocabulary: Vocabulary,
    options: LoadOptions,
    *,
    stored: str | None,
    end_ids: frozenset[int] = frozenset(),
) -> Parts:
    """A model of the library from its configuration and weights, whatever files they came from.

    ``config``: as config.json has it. ``tensors``: named as the library names them. ``stored``: their number type.
    Raises ModelFileError where they do not go together, OptionError, UnsupportedFeature and MissingDependency.
    """
    from local_llms.backends.transformers.building import build

    return build(path, clean(config), tensors, vocabulary, options, stored=stored, end_ids=end_ids)
