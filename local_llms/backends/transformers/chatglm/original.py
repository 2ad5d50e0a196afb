"""The layout: which generation of ChatGLM a folder holds, and the parts of its model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_llms.backends.base import LoadOptions
from local_llms.backends.transformers.chatglm.glm_weights import glm_config, glm_modules, glm_tensors
from local_llms.backends.transformers.chatglm.ice_vocabulary import FILE as ICE_FILE
from local_llms.backends.transformers.chatglm.rank_vocabulary import (
    SPECIAL_TOKENS,
    RankVocabulary,
    read_ranks,
)
from local_llms.backends.transformers.chatglm.role_vocabulary import RoleVocabulary
from local_llms.backends.transformers.config import end_ids_of
from local_llms.backends.transformers.files import number, read_json
from local_llms.backends.transformers.folder import assemble
from local_llms.backends.transformers.parts import Parts
from local_llms.backends.transformers.tokenizer_facts import TokenizerFacts
from local_llms.backends.transformers.weights import Weights, has_weights, weight_files
from local_llms.errors import AdapterError, ModelFileError, UnsupportedFeature
from local_llms.hub.folder_template import has_ranks, template_of_kind

if TYPE_CHECKING:
    import torch

TOKENIZER_FILE = "tokenizer.model"

_KIND = "chatglm"
_logger = logging.getLogger("local_llms")


def claims(path: Path) -> str | None:
    """A folder whose config.json has the ``model_type`` "chatglm", with weights beside it."""
    config = path / "config.json"
    if not config.is_file() or not has_weights(path):
        return None
    try:
        kind = read_json(config).get("model_type")
    except ModelFileError:
        return None
    return "it is a folder of ChatGLM's original layout" if kind == _KIND else None


def load(path: Path, options: LoadOptions) -> Parts:
    """Read a folder. Raises ModelFileError, AdapterError, OptionError, UnsupportedFeature and MissingDependency."""
    place = path / "config.json"
    config = read_json(place)
    if options.adapter is not None:
        raise AdapterError(
            f"{options.adapter} replaces whole weights of the model, which is not done to ChatGLM's original layout. "
            "Merge it into the model with the project that trained it."
        )
    weights = Weights(weight_files(path))
    if config.get("quantization_bit") or any(name.endswith("weight_scale") for name in weights.names):
        raise UnsupportedFeature(
            f"{path} holds weights that were quantized already. Load the original ones, and quantize them with "
            'quantization="int4" or "int8".'
        )
    tensors = weights.tensors()
    if any("prefix_encoder." in name for name in tensors):
        _logger.info("%s holds a P-tuning prefix beside the model: give the folder as adapter= too to use it.", path)
    if "padded_vocab_size" in config:
        return _later(path, config, tensors, options, weights.dtype)
    if "inner_hidden_size" in config:
        return _first(path, config, tensors, options, weights.dtype)
    raise ModelFileError(
        f"{place} describes no ChatGLM: it has neither padded_vocab_size nor inner_hidden_size. Fetch it again."
    )


def _first(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], options: LoadOptions, stored: str | None
) -> Parts:
    """ChatGLM-6B."""
    from local_llms.backends.transformers.chatglm.first import load_first

    return load_first(path, config, tensors, options, stored)


def _later(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], options: LoadOptions, stored: str | None
) -> Parts:
    """ChatGLM2, ChatGLM3 or GLM-4."""
    from local_llms.backends.transformers.chatglm.prefix import read_prefix
    from local_llms.backends.transformers.lora import read_lora

    place = path / "config.json"
    native = glm_config(config, place)
    template = template_of_kind(path, config)
    vocabulary = _vocabulary(path, template)
    renamed = dict(glm_tensors(tensors, native, path))
    parts = assemble(path, native, renamed, vocabulary, options, stored=stored, end_ids=end_ids_of(path, config))
    return replace(
        parts,
        architecture=_KIND,
        trained_context_length=number(config, "seq_length", place),
        template=template,
        adapter_readers=(read_prefix, partial(read_lora, targets=glm_modules(native))),
    )


def _vocabulary(path: Path, template: str | None) -> RankVocabulary | RoleVocabulary:
    """The vocabulary of a later generation; ``template`` tells ChatGLM2, which has no tokens for roles."""
    file = path / TOKENIZER_FILE
    if not file.is_file():
        other = f" It has {ICE_FILE}, which belongs to ChatGLM-6B." if (path / ICE_FILE).is_file() else ""
        raise ModelFileError(f"{path} has no {TOKENIZER_FILE}.{other} Fetch the model again.")
    facts = TokenizerFacts.of(path)
    if not has_ranks(file):
        return RoleVocabulary(file, roles=template != "chatglm2", chat_template=facts.chat_template)
    ranks = read_ranks(file)
    declared = {token.text: number for number, token in facts.added.items()}
    specials = declared or {text: len(ranks) + place for place, text in enumerate(SPECIAL_TOKENS)}
    if any(token < len(ranks) for token in specials.values()):
        raise ModelFileError(f"{path}: tokenizer_config.json gives special tokens the ids of others. Fetch it again.")
    return RankVocabulary(ranks, specials, facts.chat_template)
