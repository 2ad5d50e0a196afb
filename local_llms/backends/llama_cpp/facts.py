"""What a GGUF file says about its model, and the context that suits it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import llama_cpp.llama_cpp as lib

from local_llms.backends.base import BackendInfo, LoadOptions
from local_llms.backends.llama_cpp.native import ContextPlan, Native
from local_llms.backends.llama_cpp.vocabulary import Vocabulary
from local_llms.errors import OptionError, UnsupportedFeature
from local_llms.hub.gguf import GGUFHeader
from local_llms.hub.gguf_template import jinja_of, template_name
from local_llms.options import DEFAULT_CONTEXT

BATCH_TOKENS = 512
EMBEDDING_SEQUENCES = 64
_VECTOR_POOLINGS = (lib.LLAMA_POOLING_TYPE_MEAN, lib.LLAMA_POOLING_TYPE_CLS, lib.LLAMA_POOLING_TYPE_LAST)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Read from the header alone.

    ``pooling`` is llama.cpp's number for how an embedding model makes one vector of a text; None for a model that
    generates. ``fixed_positions``: the model learned a vector per position of its training, and has no more.
    """

    architecture: str
    name: str
    trained_context: int
    pooling: int | None
    fixed_positions: bool
    declares_bos: bool
    chat_template: str | None
    template: str | None

    @classmethod
    def of(cls, header: GGUFHeader) -> ModelFacts:
        """The facts of a checked file."""

        def fact(key: str, kind: type[Any], default: Any) -> Any:
            value = header.metadata.get(key)
            return value if type(value) is kind else default

        arch = header.architecture
        pooling = fact(f"{arch}.pooling_type", int, lib.LLAMA_POOLING_TYPE_NONE)
        if pooling == lib.LLAMA_POOLING_TYPE_NONE:
            # An encoder without a declared pooling: the mean of its tokens is what such models are trained for.
            causal = fact(f"{arch}.attention.causal", bool, True)
            pooling = None if causal else lib.LLAMA_POOLING_TYPE_MEAN
        return cls(
            architecture=arch,
            name=fact("general.name", str, ""),
            trained_context=fact(f"{arch}.context_length", int, 0),
            pooling=pooling,
            fixed_positions=any(tensor.name == "position_embd.weight" for tensor in header.tensors),
            declares_bos="tokenizer.ggml.bos_token_id" in header.metadata,
            chat_template=jinja_of(header),
            template=template_name(header),
        )

    def check_kind(self, model: Any) -> None:
        """Raise UnsupportedFeature for a model that neither generates token by token nor gives vectors."""
        kind = ""
        if lib.llama_model_has_encoder(model) and lib.llama_model_has_decoder(model):
            kind = "an encoder-decoder model"
        elif lib.llama_model_is_diffusion(model):
            kind = "a diffusion model"
        elif self.pooling is not None and self.pooling not in _VECTOR_POOLINGS:
            kind = "a model that ranks texts"
        if kind:
            raise UnsupportedFeature(
                f"{self.name or 'This file'} ({self.architecture}) is {kind}, which this package does not run. "
                "Choose a model that generates text, or an embedding model."
            )

    def info(self, native: Native, vocabulary: Vocabulary, context_length: int, plan: ContextPlan) -> BackendInfo:
        """The facts of a model that was loaded with that plan."""
        model = native.model
        embeds = self.pooling is not None
        cells: int = lib.llama_n_ctx(native.context)
        return BackendInfo(
            backend="llama_cpp",
            architecture=self.architecture,
            parameters=lib.llama_model_n_params(model),
            vocabulary_size=vocabulary.size,
            context_length=context_length,
            trained_context_length=self.trained_context or context_length,
            # A recurrent state has the same size however long its sequence is.
            cache_tokens=context_length * plan.sequences if lib.llama_model_is_recurrent(model) else cells,
            max_sequences=plan.sequences,
            batch_tokens=lib.llama_n_batch(native.context),
            bos_id=vocabulary.bos_id,
            end_ids=vocabulary.end_ids,
            adds_bos=vocabulary.adds_bos,
            special_tokens=vocabulary.special_tokens,
            eos_text=vocabulary.eos_text,
            swallows_before=vocabulary.swallows_before,
            swallows_after=vocabulary.swallows_after,
            keeps_bytes=vocabulary.keeps_bytes,
            prompt_prefix=_prefix(self.architecture, vocabulary),
            chat_template=self.chat_template,
            template=self.template,
            embedding_size=lib.llama_model_n_embd_out(model) if embeds else None,
            can_generate=not embeds,
            can_cut=not _has_state(model),
            quantization=_quantization(model),
            weight_bytes=lib.llama_model_size(model),
            device=native.device,
            name=self.name,
        )


def plan_context(facts: ModelFacts, options: LoadOptions, native: Native) -> tuple[int, ContextPlan]:
    """The most tokens of one sequence, and the context to make. Raises OptionError for options that cannot be."""
    trained: int = facts.trained_context or lib.llama_model_n_ctx_train(native.model)
    asked = options.context_length
    if asked is not None and facts.fixed_positions and asked > trained:
        raise OptionError(
            f"context_length={asked}: this model has learned {trained} positions and can have no more. "
            f"Give at most {trained}."
        )
    if asked is not None and options.cache_tokens is not None and asked > options.cache_tokens:
        raise OptionError(
            f"context_length={asked} is more than cache_tokens={options.cache_tokens}, which all sequences share. "
            f"Give cache_tokens at least {asked}, or leave it out."
        )
    context_length = asked or min(trained, DEFAULT_CONTEXT, options.cache_tokens or DEFAULT_CONTEXT)
    if facts.pooling is not None:
        # The tokens of a text look at each other in both directions, so all of them are computed in one call.
        batch = max(BATCH_TOKENS, context_length)
        return context_length, ContextPlan(batch, EMBEDDING_SEQUENCES, batch, embeddings=True, pooling=facts.pooling)
    recurrent = _has_state(native.model)
    sequences = _sequences(options.max_parallel, recurrent)
    # llama.cpp ends the process where there are more sequences than cells.
    cells = max(options.cache_tokens or max(context_length, DEFAULT_CONTEXT), sequences)
    return context_length, ContextPlan(cells, sequences, BATCH_TOKENS, interruptible=not recurrent)


def _prefix(architecture: str, vocabulary: Vocabulary) -> tuple[int, ...]:
    """What ChatGLM2 and later ones expect in front of every prompt, where the vocabulary has it."""
    if architecture not in ("chatglm", "glm4"):
        return ()
    ids = vocabulary.special_tokens
    start = ids.get("<sop>", ids.get("sop"))
    return (ids["[gMASK]"], start) if "[gMASK]" in ids and start is not None else ()


def _sequences(max_parallel: int, recurrent: bool) -> int:
    """One per running request, and the rest for kept prefixes.

    A sequence of a KV cache costs one row of the output buffer. A recurrent one costs a whole state: of those only as
    many as are needed.
    """
    wanted = 2 * max_parallel + 16 if recurrent else 4 * max_parallel + 32
    return min(wanted, int(lib.llama_max_parallel_sequences()))


def _has_state(model: Any) -> bool:
    """Whether a sequence has a recurrent state, alone or beside its part of a KV cache."""
    return bool(lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model))


def _quantization(model: Any) -> str:
    """llama.cpp's description is "architecture size quantization"; the last part may have spaces."""
    buffer = ctypes.create_string_buffer(256)
    lib.llama_model_desc(model, buffer, len(buffer))
    words = buffer.value.decode("utf-8", "replace").split(" ", 2)
    return words[2].removeprefix("(guessed) ") if len(words) == 3 else ""
