"""A folder of ChatGLM-6B becomes the parts of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from local_llms.backends.base import LoadOptions
from local_llms.backends.transformers.building import load_model
from local_llms.backends.transformers.chatglm.ice_vocabulary import FILE, START, IceVocabulary
from local_llms.backends.transformers.chatglm.network import ChatGLM, ChatGLMConfig, ChatGLMNetwork
from local_llms.backends.transformers.chatglm.prefix import read_prefix
from local_llms.backends.transformers.config import end_ids_of
from local_llms.backends.transformers.device import choose_device, choose_dtype
from local_llms.backends.transformers.files import number
from local_llms.backends.transformers.parts import Parts
from local_llms.errors import ModelFileError, UnsupportedFeature
from local_llms.hub.folder_template import template_of_kind

_EMBEDDINGS, _HEAD = "transformer.word_embeddings.weight", "lm_head.weight"

_GMASK, _MASK = -3, -4
"""Places of ``[gMASK]`` and ``[MASK]`` among the ids, from ``<sop>``, where a configuration does not name them."""


def load_first(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], options: LoadOptions, stored: str | None
) -> Parts:
    """Read a folder whose ``config.json`` is ``config``.

    Raises ModelFileError, OptionError, MissingDependency, and UnsupportedFeature for a variant with one position.
    """
    place = path / "config.json"
    tensors, tied = _without_twin(tensors)
    sizes = _sizes(config, place, tied=tied)
    start = number(config, "bos_token_id", place)
    gmask, mask = (
        number(config, key, place) if key in config else max(start + offset, 0)
        for key, offset in (("gmask_token_id", _GMASK), ("mask_token_id", _MASK))
    )
    vocabulary = IceVocabulary(path / FILE, gmask)
    if vocabulary.special_tokens[START] != start or vocabulary.size > sizes.vocab_size:
        raise ModelFileError(
            f"{place} has {sizes.vocab_size} tokens and {START} as {start}, and {FILE} has {vocabulary.size} and it as "
            f"{vocabulary.special_tokens[START]}. Take both files from one release of the model."
        )
    device = choose_device(options)
    dtype = choose_dtype(options, device, stored)
    module = load_model(path, ChatGLM, sizes, tensors, dtype, device, options.quantization)
    return Parts(
        network=ChatGLMNetwork(module, sizes, start=start, masks=(gmask, mask)),
        vocabulary=vocabulary,
        architecture="chatglm",
        trained_context_length=number(config, "max_sequence_length", place),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        name=path.name,
        quantization=options.quantization or str(dtype).removeprefix("torch."),
        end_ids=end_ids_of(path, config),
        template=template_of_kind(path, config),
        bidirectional_until=start,
        adapter_readers=(read_prefix,),
    )


def _without_twin(tensors: Mapping[str, torch.Tensor]) -> tuple[Mapping[str, torch.Tensor], bool]:
    """The weights, and whether the output matrix is the embeddings: the published checkpoint stores them twice."""
    embeddings, head = tensors.get(_EMBEDDINGS), tensors.get(_HEAD)
    if head is not None and (embeddings is None or not torch.equal(head, embeddings)):
        return tensors, False
    return {name: tensor for name, tensor in tensors.items() if name != _HEAD}, True


def _sizes(config: Mapping[str, Any], place: Path, *, tied: bool) -> ChatGLMConfig:
    if config.get("position_encoding_2d") is not True:
        raise UnsupportedFeature(f"{place}: only models with position_encoding_2d can be run, and this is none.")
    hidden, heads = number(config, "hidden_size", place), number(config, "num_attention_heads", place)
    if hidden % (4 * heads):
        raise ModelFileError(f"{place} is damaged: {heads} heads cannot share {hidden} numbers in four parts each.")
    epsilon = config.get("layernorm_epsilon", 1e-5)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise ModelFileError(f"{place} is damaged: layernorm_epsilon is {epsilon!r}.")
    inner = config.get("inner_hidden_size")
    return ChatGLMConfig(
        vocab_size=number(config, "vocab_size", place),
        hidden_size=hidden,
        inner_hidden_size=4 * hidden if inner is None else number(config, "inner_hidden_size", place),
        num_attention_heads=heads,
        num_layers=number(config, "num_layers", place, most=1 << 10),
        layernorm_epsilon=epsilon,
        tie_word_embeddings=tied,
    )
