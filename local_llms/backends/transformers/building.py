"""Builds a network of the transformers library from a configuration and tensors, and refuses what does not fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from local_llms.backends.base import LoadOptions
from local_llms.backends.transformers.config import context_of, first_line, layers_of, library_config
from local_llms.backends.transformers.device import choose_device, choose_dtype
from local_llms.backends.transformers.merging import merge
from local_llms.backends.transformers.native import ATTENTION, register, replaces_attention
from local_llms.backends.transformers.parts import Parts, Vocabulary
from local_llms.backends.transformers.quantize import quantization_config
from local_llms.backends.transformers.quiet import quiet
from local_llms.backends.transformers.verify import check_kind, drive
from local_llms.backends.transformers.vocabularies import vocabulary_of
from local_llms.errors import AdapterError, ModelFileError, ModelLoadError, UnsupportedFeature
from local_llms.options import DEFAULT_CONTEXT

_DAMAGE = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, ZeroDivisionError, OSError)
"""What the library raises for configurations and weights that do not go together."""

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def build(
    path: Path,
    config: dict[str, Any],
    tensors: Mapping[str, torch.Tensor],
    vocabulary: Vocabulary,
    options: LoadOptions,
    *,
    stored: str | None,
    end_ids: frozenset[int],
) -> Parts:
    """See ``folder.assemble``. ``config`` is cleaned."""
    device = choose_device(options)
    dtype = choose_dtype(options, device, stored)
    settings = library_config(dict(config), path / "config.json" if path.is_dir() else path)
    model_class = class_of(settings, config, path)
    _check_layers(config, tensors, path)
    register()
    check_kind(model_class, settings)
    model = load_model(path, model_class, settings, tensors, dtype, device, options.quantization)
    if options.adapter is not None:
        merge(options.adapter, model)
        vocabulary = _with_tokenizer(options.adapter, vocabulary)
    network = drive(model, settings.model_type)
    if not network.gives_numbers:
        raise ModelFileError(f"{path}: the weights give no numbers, so they are damaged. Fetch the model again.")
    trained = context_of(config)
    return Parts(
        network=network,
        vocabulary=_checked(vocabulary, network.vocabulary_size, path, options.adapter),
        architecture=settings.model_type,
        trained_context_length=trained or DEFAULT_CONTEXT,
        parameters=sum({tensor.data_ptr(): tensor.numel() for tensor in tensors.values()}.values()),
        longest_context=None if _any_position(settings) else trained,
        name=path.name,
        quantization=options.quantization or str(dtype).removeprefix("torch."),
        end_ids=end_ids,
    )


def class_of(settings: Any, config: Mapping[str, Any], path: Path) -> type[Any]:
    """The library's class of models that write text, for a configuration. Raises UnsupportedFeature."""
    from transformers import AutoModelForCausalLM

    if type(settings) not in AutoModelForCausalLM._model_mapping:
        raise UnsupportedFeature(f"{path}: the architecture {settings.model_type!r} does not continue texts.")
    found = AutoModelForCausalLM._model_mapping[type(settings)]
    choices = found if isinstance(found, tuple) else (found,)
    named = config.get("architectures") or ()
    model_class: type[Any] = next((choice for choice in choices if choice.__name__ in named), choices[0])
    return model_class


def load_model(
    path: Path,
    model_class: type[Any],
    settings: Any,
    tensors: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
    device: torch.device,
    quantization: str | None,
) -> torch.nn.Module:
    """The model with its weights. Raises ModelFileError where any is missing or has another shape."""
    register()
    arguments: dict[str, Any] = {
        "attn_implementation": ATTENTION if replaces_attention(model_class) else "eager",
        "dtype": dtype,
    }
    if quantization is not None:
        arguments.update(quantization_config=quantization_config(quantization, dtype), device_map={"": device})
    with quiet():
        try:
            _check_size(model_class, settings, tensors, path)
            model, report = model_class.from_pretrained(
                None, config=settings, state_dict=dict(tensors), output_loading_info=True, **arguments
            )
        except MemoryError:
            raise
        except _DAMAGE as error:
            raise ModelFileError(f"{path} cannot be loaded: {first_line(error)}. Fetch it again.") from error
    wrong = [*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"]), *report["error_msgs"]]
    if wrong:
        raise ModelFileError(
            f"{path}: the weights do not fit config.json: {len(wrong)} are missing or have another shape, such as "
            f"{sorted(map(str, wrong))[0]}. Fetch it again."
        )
    try:
        whole: torch.nn.Module = model if quantization is not None else model.to(device)
    except RuntimeError as error:
        raise ModelLoadError(f"{path} does not fit into the memory of {device}: {first_line(error)}") from error
    return whole.eval().requires_grad_(False)


def _check_layers(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse a configuration with more layers than there are weights for, before anything is built."""
    numbers = {int(found) for name in tensors for found in _NUMBER.findall(name)}
    there = 1 + max(numbers, default=-1)
    if layers_of(config) > there:
        raise ModelFileError(
            f"{path}: config.json speaks of {layers_of(config)} layers, and there are weights for {there}. Fetch it "
            "again."
        )


def _check_size(model_class: type[Any], settings: Any, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse a configuration of a larger model than the weights are: what is missing would be made up, in memory."""
    with torch.device("meta"):
        model = model_class(settings)
    wanted = sum(parameter.numel() for parameter in model.parameters())
    there = sum(tensor.numel() for tensor in tensors.values())
    # Weights that a model uses twice are stored once, and counted here once per place where they are untied.
    head = model.get_output_embeddings()
    spare = head.weight.numel() if head is not None else 0
    if wanted - spare > there:
        raise ModelFileError(
            f"{path}: config.json describes a model of {wanted} weights, and there are {there}. Fetch it again."
        )


def _any_position(settings: Any) -> bool:
    """Whether positions are rotations, which go on beyond those of the training.

    Kinds of rotation that change with the longest sequence of a call would let one sequence change another.
    """
    parameters = getattr(settings, "rope_parameters", None)
    if not isinstance(parameters, dict):
        return False
    return parameters.get("rope_type", "default") not in ("dynamic", "longrope")


def _with_tokenizer(adapter: Path, vocabulary: Vocabulary) -> Vocabulary:
    """The tokenizer that an adapter brings, or else the model's own."""
    there = any((adapter / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))
    return vocabulary_of(adapter) if there else vocabulary


def _checked(vocabulary: Vocabulary, rows: int, path: Path, adapter: Path | None) -> Vocabulary:
    if vocabulary.size > rows:
        what = f"the tokenizer has {vocabulary.size} tokens, and the model {rows}. They do not belong together."
        raise ModelFileError(f"{path}: {what}") if adapter is None else AdapterError(f"{adapter}: {what}")
    return vocabulary
