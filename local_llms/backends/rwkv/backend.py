"""The RWKV backend: one loaded checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from local_llms.backends.base import Adapter, BackendInfo, Chunk, LoadOptions, Logits
from local_llms.backends.rwkv.checkpoint import Checkpoint
from local_llms.backends.rwkv.network import Network
from local_llms.backends.rwkv.sequences import Sequences
from local_llms.backends.rwkv.vocabulary import Vocabulary, choose_vocabulary
from local_llms.cores import usable_cores
from local_llms.errors import EngineClosed, EngineForked, ModelLoadError, OptionError, UnsupportedFeature

BATCH_TOKENS = 512
LONGEST = 1 << 20
"""Tokens of a sequence where no context length is asked for: a state has the same size after any number of them."""
KEPT_BYTES = 1 << 30
"""Bytes of states of kept prefixes, about, that a model may have beside those that run."""
_FEWEST_KEPT = 4


class RwkvBackend:
    """Implements ``Backend``."""

    def __init__(self, network: Network, info: BackendInfo, vocabulary: Vocabulary, threads: int) -> None:
        """Use ``load``."""
        self._info = info
        self._vocabulary = vocabulary
        self._sequences: Sequences | None = Sequences(network, info, threads)
        self._process = os.getpid()

    @classmethod
    def load(cls, path: Path, options: LoadOptions) -> RwkvBackend:
        """Load a file, or the one in a folder.

        Raises ModelFileError (ModelLoadError where memory does not suffice), MissingDependency, OptionError and
        UnsupportedFeature.
        """
        _check_options(options)
        checkpoint = Checkpoint.open(path)
        device = _device(options)
        dtype = _dtype(options, device, checkpoint.stored)
        try:
            weights = checkpoint.weights(device, dtype)
            network = Network.read(weights)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise ModelLoadError(
                f"{checkpoint.file} does not fit into memory as {dtype}: {error}. Load it with a 16-bit dtype, or look "
                "for the model as a quantized GGUF file."
            ) from error
        _check_layers(options, device, len(network.layers))
        rows = network.embedding.shape[0]
        vocabulary, description = choose_vocabulary(checkpoint.file, rows)
        kept = max(_FEWEST_KEPT, min(options.max_parallel + 16, KEPT_BYTES // network.states.size))
        sequences = options.max_parallel + kept
        context_length = options.context_length or LONGEST
        info = BackendInfo(
            backend="rwkv",
            architecture=f"rwkv{network.version}",
            parameters=checkpoint.parameters,
            vocabulary_size=rows,
            vocabulary=description,
            context_length=context_length,
            trained_context_length=checkpoint.trained_context,
            # No token costs anything, so all sequences may be as long as they like.
            cache_tokens=context_length * sequences,
            max_sequences=sequences,
            batch_tokens=BATCH_TOKENS,
            bos_id=None,
            end_ids=vocabulary.end_ids,
            adds_bos=False,
            special_tokens=vocabulary.special_tokens,
            eos_text=vocabulary.eos_text,
            can_cut=False,
            quantization=checkpoint.quantization,
            weight_bytes=weights.taken,
            device=device.type,
            name=checkpoint.file.stem,
        )
        return cls(network, info, vocabulary, options.threads or usable_cores())

    @property
    def info(self) -> BackendInfo:
        """Facts that do not change while the model is loaded."""
        return self._info

    @property
    def state_bytes(self) -> int:
        """Bytes of all recurrent states that are held now, those of kept prefixes included."""
        return self._open().state_bytes

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text; see ``Backend.tokenize``."""
        self._open()
        return self._vocabulary.tokenize(text)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text. Raises ValueError where there is no such token."""
        self._open()
        if not 0 <= token_id < self._info.vocabulary_size:
            raise ValueError(f"there is no token {token_id}; the vocabulary has {self._info.vocabulary_size}")
        # The network may have more rows than there are tokens.
        return self._vocabulary.token_bytes(token_id) if token_id < self._vocabulary.size else b""

    def open_adapter(self, path: Path) -> None:
        """Raises UnsupportedFeature."""
        self._open()
        _no_adapters(path)

    def decode(self, chunks: Sequence[Chunk], adapter: Adapter | None = None) -> Logits:
        """Compute new tokens; see ``Backend.decode``. Raises ValueError for chunks that break its rules."""
        sequences = self._open()
        if adapter is not None:
            raise ValueError(f"the adapter {adapter.path} was not opened")
        return sequences.decode(chunks)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the state of a sequence. Raises ValueError where it is not possible."""
        self._open().copy(source, target, length)

    def cut(self, sequence: int, length: int) -> None:
        """Empty a sequence, or leave it as it is. Raises ValueError for anything else."""
        self._open().cut(sequence, length)

    def free(self, sequence: int) -> None:
        """Empty a sequence."""
        self._open().free(sequence)

    def embed(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Raises UnsupportedFeature."""
        self._open()
        _no_embeddings(self._info)

    def encode_for_embedding(self, text: str) -> list[int]:
        """Raises UnsupportedFeature."""
        self._open()
        _no_embeddings(self._info)

    def interrupt(self) -> None:
        """Stop the running computation at its next layer."""
        sequences = self._sequences
        if sequences is not None:
            sequences.interrupt()

    def close(self) -> None:
        """Free the weights and all states."""
        self._sequences = None

    def _open(self) -> Sequences:
        if os.getpid() != self._process:
            raise EngineForked(
                "The model was loaded before this process was forked. Load it in the child, or start processes with "
                'the "spawn" method.'
            )
        if self._sequences is None:
            raise EngineClosed("The model was closed. Load it again.")
        return self._sequences


def _check_options(options: LoadOptions) -> None:
    if options.quantization is not None:
        raise OptionError(
            f"quantization={options.quantization!r}: RWKV weights are not quantized while they are loaded. Give "
            'dtype="bfloat16" for half the memory, or look for the model as a quantized GGUF file.'
        )
    if options.adapter is not None:
        _no_adapters(options.adapter)


def _check_layers(options: LoadOptions, device: torch.device, layers: int) -> None:
    if device.type != "cpu" and options.gpu_layers is not None and options.gpu_layers < layers:
        raise OptionError(
            f"gpu_layers={options.gpu_layers}: this model has {layers} layers, and all of them are on one device. "
            "Leave it out, or give 0 to compute on the CPU."
        )


def _device(options: LoadOptions) -> torch.device:
    if options.device == "cpu" or options.gpu_layers == 0:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if options.device == "cuda":
        raise OptionError('device="cuda": torch finds no CUDA device. Give device="cpu", or install torch with CUDA.')
    return torch.device("cpu")


def _dtype(options: LoadOptions, device: torch.device, stored: torch.dtype) -> torch.dtype:
    if options.dtype is not None:
        named: torch.dtype = getattr(torch, options.dtype)
        return named
    if device.type == "cpu":
        return torch.float32
    return stored if stored in (torch.float16, torch.bfloat16) else torch.float16


def _no_adapters(path: Path) -> NoReturn:
    raise UnsupportedFeature(
        f"RWKV models take no adapters, so {path} cannot be used. Merge it into the weights with the program it was "
        "trained with."
    )


def _no_embeddings(info: BackendInfo) -> NoReturn:
    raise UnsupportedFeature(f"{info.name} gives no embeddings. Load an embedding model, such as all-minilm-l6-v2.")
