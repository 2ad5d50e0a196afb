"""The transformers backend: one loaded model, whatever layout its checkpoint has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from local_llms.backends.base import Adapter, BackendInfo, Chunk, LoadOptions, Logits
from local_llms.backends.transformers.adapters import Adapters
from local_llms.backends.transformers.attention import KeyValueStore
from local_llms.backends.transformers.config import first_line
from local_llms.backends.transformers.device import use_threads
from local_llms.backends.transformers.lifetime import Lifetime
from local_llms.backends.transformers.parts import Parts
from local_llms.backends.transformers.sequences import Sequences
from local_llms.errors import EngineClosed, ModelLoadError, OptionError, UnsupportedFeature
from local_llms.options import DEFAULT_CONTEXT

NAME = "transformers"


class TransformersBackend:
    """Implements ``Backend`` over ``Parts``."""

    def __init__(self, parts: Parts, options: LoadOptions) -> None:
        """Raises OptionError for a context or a cache that cannot be, ModelLoadError for one that has no room."""
        self._lifetime = Lifetime()
        self._options = options
        self._vocabulary = parts.vocabulary
        first = next(parts.network.module.parameters())
        self._info = _info(parts, options, first.device)
        dtype = first.dtype if first.is_floating_point() else torch.float32
        try:
            store = KeyValueStore(self._info.cache_tokens, parts.network.layers, dtype, first.device)
        except RuntimeError as error:
            raise ModelLoadError(
                f"A KV cache of {self._info.cache_tokens} tokens has no room: {first_line(error)}. Give fewer "
                "cache_tokens."
            ) from error
        self._held: tuple[Sequences, Adapters] | None = (
            Sequences(parts.network, self._info, store),
            Adapters(parts),
        )

    @property
    def info(self) -> BackendInfo:
        """Facts that do not change while the model is loaded."""
        return self._info

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text; see ``Backend.tokenize``."""
        with self._lifetime:
            return self._vocabulary.tokenize(text)

    def tokenize_after(self, text: str) -> list[int]:
        """Ids of plain text behind a special token; see ``TokenizesAfter``."""
        with self._lifetime:
            return self._vocabulary.tokenize_after(text)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text. Raises ValueError where there is no such token."""
        if not 0 <= token_id < self._info.vocabulary_size:
            raise ValueError(f"there is no token {token_id}; the vocabulary has {self._info.vocabulary_size}")
        with self._lifetime:
            return self._vocabulary.token_bytes(token_id) if token_id < self._vocabulary.size else b""

    def open_adapter(self, path: Path) -> None:
        """Load an adapter; see ``Backend.open_adapter``. Raises AdapterError, MissingDependency and DownloadError."""
        with self._lifetime:
            self._use[1].open(path)

    def decode(self, chunks: Sequence[Chunk], adapter: Adapter | None = None) -> Logits:
        """Compute new tokens; see ``Backend.decode``. Raises ValueError for chunks that break its rules."""
        with self._lifetime:
            sequences, adapters = self._use
            use_threads(self._options)
            if adapter is None:
                return sequences.decode(chunks)
            return sequences.decode(chunks, adapters.get(adapter.path), adapter.scale)

    def copy(self, source: int, target: int, length: int) -> None:
        """Share the first tokens of a sequence. Raises ValueError where it is not possible."""
        with self._lifetime:
            self._use[0].copy(source, target, length)

    def cut(self, sequence: int, length: int) -> None:
        """Shorten a sequence. Raises ValueError where it is not possible."""
        with self._lifetime:
            self._use[0].cut(sequence, length)

    def free(self, sequence: int) -> None:
        """Empty a sequence."""
        with self._lifetime:
            self._use[0].free(sequence)

    def embed(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Raises UnsupportedFeature: this backend generates text only."""
        raise self._no_embeddings()

    def encode_for_embedding(self, text: str) -> list[int]:
        """Raises UnsupportedFeature: this backend generates text only."""
        raise self._no_embeddings()

    def interrupt(self) -> None:
        """Stop the running computation at its next layer."""
        held = self._held
        if held is not None:
            held[0].interrupt()

    def close(self) -> None:
        """Free the weights, once; waits for calls that other threads are in."""
        self.interrupt()
        if self._lifetime.end():
            self._held = None

    @property
    def _use(self) -> tuple[Sequences, Adapters]:
        if self._held is None:
            raise EngineClosed("The model was closed. Load it again with load_model().")
        return self._held

    def _no_embeddings(self) -> UnsupportedFeature:
        return UnsupportedFeature(
            f"{self._info.name or 'This model'} gives no embeddings. Load an embedding model, such as all-minilm-l6-v2."
        )


def _weight_bytes(module: torch.nn.Module) -> int:
    """Bytes of its parameters, those in several places once, and of what bitsandbytes keeps beside them."""
    found: list[torch.Tensor] = [*module.parameters()]
    for parameter in module.parameters():
        scales = getattr(parameter, "SCB", None), getattr(getattr(parameter, "quant_state", None), "absmax", None)
        found += [tensor for tensor in scales if isinstance(tensor, torch.Tensor)]
    return sum({tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in found}.values())


def _info(parts: Parts, options: LoadOptions, device: torch.device) -> BackendInfo:
    """The facts of a model. Raises OptionError for a context or a cache that cannot be."""
    trained, asked = parts.trained_context_length, options.context_length
    if asked is not None and parts.longest_context is not None and asked > parts.longest_context:
        raise OptionError(
            f"context_length={asked}: this model can have no more than {parts.longest_context} positions. "
            f"Give at most {parts.longest_context}."
        )
    if asked is not None and options.cache_tokens is not None and asked > options.cache_tokens:
        raise OptionError(
            f"context_length={asked} is more than cache_tokens={options.cache_tokens}, which all sequences share. "
            f"Give cache_tokens at least {asked}, or leave it out."
        )
    if options.cache_dtype != "f16":
        raise OptionError(
            f"cache_dtype={options.cache_dtype!r}: this backend keeps its KV cache in the type that it computes in. "
            "Leave it out."
        )
    context = asked or min(trained, DEFAULT_CONTEXT, options.cache_tokens or DEFAULT_CONTEXT)
    vocabulary = parts.vocabulary
    size = parts.network.vocabulary_size
    return BackendInfo(
        backend=NAME,
        architecture=parts.architecture,
        parameters=parts.parameters,
        vocabulary_size=size,
        context_length=context,
        trained_context_length=trained,
        cache_tokens=options.cache_tokens or max(context, DEFAULT_CONTEXT),
        # One per running request, and the rest for kept prefixes: an empty one costs nothing.
        max_sequences=4 * options.max_parallel + 32,
        batch_tokens=parts.batch_tokens,
        bos_id=vocabulary.bos_id,
        end_ids=frozenset(token for token in parts.end_ids | vocabulary.end_ids if token < size),
        adds_bos=vocabulary.adds_bos,
        special_tokens=vocabulary.special_tokens,
        eos_text=vocabulary.eos_text,
        swallows_before=vocabulary.swallows_before,
        swallows_after=vocabulary.swallows_after,
        prompt_prefix=vocabulary.prompt_prefix,
        prompt_suffix=vocabulary.prompt_suffix,
        chat_template=vocabulary.chat_template,
        template=parts.template,
        bidirectional_until=parts.bidirectional_until,
        vocabulary=parts.vocabulary_name,
        quantization=parts.quantization,
        weight_bytes=_weight_bytes(parts.network.module),
        device=device.type,
        name=parts.name,
    )
