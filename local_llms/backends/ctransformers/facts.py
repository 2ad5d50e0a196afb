"""What a GGML file says about its model, and how it is loaded."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from local_llms.backends.base import BackendInfo, LoadOptions
from local_llms.backends.ctransformers.byte_pairs import ByteVocabulary
from local_llms.backends.ctransformers.pieces import PieceVocabulary
from local_llms.backends.ctransformers.vocabulary import Vocabulary
from local_llms.cores import usable_cores
from local_llms.errors import ModelFileError, OptionError
from local_llms.hub.ggml import GGMLHeader
from local_llms.hub.ggml_check import grouped
from local_llms.options import DEFAULT_CONTEXT

TRAINED_LLAMA = 2048
"""A LLaMA file does not tell its context length; that of LLaMA 1. LLaMA 2 has twice as much."""
SEQUENCES = 8
"""Sequences of which one at a time is in the library. The others cost their token ids."""
BATCH_TOKENS = 512
STEP_TOKENS = {"llama": 32, "gptneox": 8, "gptj": 8}
"""The most tokens in one call of the library. Those of GPT-NeoX and GPT-J share a buffer whose size is guessed."""
LLAMA_LAYERS = frozenset({*range(1, 33), 40, 60, 80})
"""What the library has buffer sizes for (llama_model_load_internal); other numbers end its process."""

_GGUF = "Load this model as GGUF instead: llama.cpp can do it."


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is loaded: tokens of one sequence, tokens that the library makes room for, threads."""

    context: int
    native_context: int
    threads: int


def check_loadable(header: GGMLHeader) -> None:
    """Raise ModelFileError for a sound file that the library cannot load, and say which way there is."""
    llama = header.kind == "llama"
    if llama and header.numbers["layers"] not in LLAMA_LAYERS:
        raise ModelFileError(
            f"{header.path} has {header.numbers['layers']} layers, and ctransformers knows LLaMA models of fewer than "
            "33, of 40, 60 and 80. Convert it to GGUF."
        )
    if grouped(header) != (8 if llama and _looks_like_70b(header.path) else 1):
        raise ModelFileError(
            f"{header.path}: ctransformers takes a file for LLaMA 2 70B when its path has the word 70b in it, and this "
            "one is not what its path says. Rename it."
        )


def plan(header: GGMLHeader, options: LoadOptions) -> Plan:
    """Decide how to load. Raises OptionError for options that this backend does not have."""
    _refuse(options)
    trained = header.numbers.get("context", TRAINED_LLAMA)
    asked = options.context_length
    fixed = "context" in header.numbers
    if asked is not None and fixed and asked > trained:
        raise OptionError(
            f"context_length={asked}: this file has room for {trained} tokens and no more. Give at most {trained}."
        )
    if asked is not None and options.cache_tokens is not None and asked > options.cache_tokens:
        raise OptionError(
            f"context_length={asked} is more than cache_tokens={options.cache_tokens}. Give cache_tokens at least "
            f"{asked}, or leave it out."
        )
    context = asked or min(trained, DEFAULT_CONTEXT, options.cache_tokens or DEFAULT_CONTEXT)
    return Plan(context, trained if fixed else context, options.threads or usable_cores())


def vocabulary_of(header: GGMLHeader) -> Vocabulary:
    """The vocabulary in the file."""
    if header.kind == "llama":
        return PieceVocabulary(header.vocabulary, header.scores)
    return ByteVocabulary(header.vocabulary)


def info_of(header: GGMLHeader, vocabulary: Vocabulary, decided: Plan, name: str) -> BackendInfo:
    """The facts of a model that was loaded with that plan; the file carries no name, so it is the file's."""
    return BackendInfo(
        backend="ctransformers",
        architecture=header.kind,
        parameters=header.parameters,
        vocabulary_size=vocabulary.size,
        context_length=decided.context,
        trained_context_length=header.numbers.get("context", TRAINED_LLAMA),
        cache_tokens=SEQUENCES * decided.context,
        max_sequences=SEQUENCES,
        max_running=1,
        batch_tokens=BATCH_TOKENS,
        bos_id=vocabulary.bos_id,
        end_ids=vocabulary.end_ids,
        adds_bos=vocabulary.adds_bos,
        special_tokens=vocabulary.special_tokens,
        eos_text=vocabulary.eos_text,
        quantization=most_common_type(header),
        weight_bytes=sum(tensor.size for tensor in header.tensors),
        name=name,
    )


def most_common_type(header: GGMLHeader) -> str:
    """The type that most weights have."""
    weights: Counter[str] = Counter()
    for tensor in header.tensors:
        weights[tensor.type.name] += math.prod(tensor.shape)
    return weights.most_common(1)[0][0]


def _refuse(options: LoadOptions) -> None:
    if options.device == "cuda" or options.gpu_layers:
        raise OptionError(f"GGML files are computed on the CPU only. {_GGUF}")
    for name, value, default in (
        ("cache_dtype", options.cache_dtype, "f16"),
        ("dtype", options.dtype, None),
        ("quantization", options.quantization, None),
        ("adapter", options.adapter, None),
    ):
        if value != default:
            raise OptionError(f"{name}={str(value)!r} is not possible for a GGML file. {_GGUF}")


def _looks_like_70b(path: Path) -> bool:
    """As models/llms/llama-ggml.cc of ctransformers decides."""
    return re.search(r"(\b|_)70b(\b|_)", str(path), re.IGNORECASE | re.ASCII) is not None
