"""What a library must do to serve this package, and nothing more.

Batching, sampling, stops, prefix reuse, streaming, usage and errors are written once, above this protocol.

A backend holds **sequences**, numbered from 0 to ``max_sequences - 1``: per sequence, the tokens computed so far and
what the library keeps of them (rows of a KV cache, or a recurrent state). A sequence that was never used or was freed
is empty.

Threads: ``tokenize``, ``token_bytes`` and ``info`` may be used from any thread, and ``open_adapter`` too, also while
``decode`` runs. Everything else is called by one thread, the engine's, except ``interrupt``. After ``close`` every
method raises EngineClosed; in a forked child, EngineForked. A call that breaks the rules below is a mistake of the
caller's code: it raises ValueError and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
"""Shape (rows, vocabulary size). Unnormalized; valid until the backend's next call."""


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What a loaded model is, and what its backend can do."""

    backend: str
    """The backend module's name, such as "llama_cpp"."""
    architecture: str
    """As the checkpoint names it, such as "llama"."""
    parameters: int
    """Number of weights; 0 where the file does not tell."""
    vocabulary_size: int
    context_length: int
    """The most tokens one sequence can hold."""
    trained_context_length: int
    """The context length the model was trained with; 0 where nothing tells."""
    cache_tokens: int
    """Tokens that all sequences together can hold; tokens shared by a copy count once.

    A recurrent state costs the same however many tokens it has read: there it is the context length times the number of
    sequences, so that it never limits anything.
    """
    max_sequences: int
    batch_tokens: int
    """The most tokens in one ``decode``."""
    bos_id: int | None
    end_ids: frozenset[int]
    """Tokens that end an answer."""
    adds_bos: bool
    """Whether the model expects its BOS in front of every prompt."""
    special_tokens: Mapping[str, int] = field(default_factory=dict)
    """Marker text → id of every control or user-defined token: structure may become such an id, content may not."""
    eos_text: str = ""
    """Marker text of the EOS token; "" where there is none."""
    prompt_prefix: tuple[int, ...] = ()
    """Special tokens that the model expects in front of every prompt, such as ChatGLM2's ``[gMASK] sop``."""
    prompt_suffix: tuple[int, ...] = ()
    """Special tokens that it expects behind every prompt, such as ChatGLM-6B's ``[gMASK] <sop>``."""
    swallows_before: frozenset[int] = frozenset()
    """Special tokens for which the model's tokenizer drops the white space in front of their marker (``lstrip``)."""
    swallows_after: frozenset[int] = frozenset()
    """Those for which it drops the white space behind, as Phi-3's ``<|user|>`` (``rstrip``)."""
    keeps_bytes: bool = False
    """Whether the tokens of a text are its bytes, one after the other, and nothing is normalized. Then the length of a
    text in bytes tells how many tokens it has at least."""
    chat_template: str | None = None
    """The Jinja template that the checkpoint carries."""
    template: str | None = None
    """Name of the catalog's template that the model was trained with, where the kind of checkpoint tells."""
    embedding_size: int | None = None
    """Length of the vector that ``embed`` gives; None where it cannot."""
    can_generate: bool = True
    max_running: int | None = None
    """The most sequences that the engine computes in turns; None: ``max_sequences``. Where the library holds one
    sequence only, a change of sequence computes what they do not share again, so one request is finished first."""
    can_cut: bool = True
    """Whether ``cut`` can shorten a sequence, and ``copy`` take less than all of it. A recurrent state cannot."""
    bidirectional_until: int | None = None
    """A token up to which a sequence is read in both directions. What precedes it depends on all that precedes it, so a
    shorter beginning of a sequence is computed again when it goes on otherwise: it saves no work."""
    quantization: str = ""
    weight_bytes: int = 0
    """Bytes of the weights as they are computed with, quantized or in another number type than the files have them in;
    0 where the library does not tell."""
    device: str = "cpu"
    name: str = ""
    """The name that the checkpoint gives itself."""
    vocabulary: str = ""
    """Which vocabulary it is and why, in words, where the model's file does not carry it."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """New tokens of one sequence for one decode.

    ``start`` is the position of ``tokens[0]``: the number of tokens that the sequence already holds.
    ``logits`` says which rows come back: "none", "last" (after the last token), "all" (after each token).
    """

    sequence: int
    start: int
    tokens: Sequence[int]
    logits: Literal["none", "last", "all"] = "last"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A change of the weights that is chosen per request: a LoRA, or a P-tuning prefix.

    ``path``: a PEFT folder, a GGUF adapter file, or a P-tuning checkpoint folder. ``scale`` multiplies the change: 1 as
    it was trained, 0 none at all.
    """

    path: Path
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a model, as a backend gets it: everything is decided but what "auto" leaves to the backend.

    - ``context_length``: tokens one sequence can hold; None takes the model's own, at most 8192.
    - ``cache_tokens``: tokens that all sequences share; None takes the larger of ``context_length`` and 8192.
    - ``cache_dtype``: type of the KV cache, "f16", "q8_0" or "f32".
    - ``max_parallel``: requests that decode together.
    - ``device``: "auto", "cpu" or "cuda". ``gpu_layers``: layers on the GPU; None means all where there is one.
    - ``threads``: None takes the cores this process may use.
    - ``dtype``: number type of the weights, "float32", "float16" or "bfloat16"; None leaves it to the backend.
    - ``quantization``: "int8" or "int4", done while loading; None leaves the weights as they are.
    - ``adapter``: one that is a part of the loaded model, since it changes the vocabulary; others are opened later.
    """

    context_length: int | None = None
    cache_tokens: int | None = None
    cache_dtype: str = "f16"
    max_parallel: int = 16
    device: str = "auto"
    gpu_layers: int | None = None
    threads: int | None = None
    dtype: str | None = None
    quantization: str | None = None
    adapter: Path | None = None


class Backend(Protocol):
    """A loaded model."""

    @property
    def info(self) -> BackendInfo:
        """Facts that do not change while the model is loaded."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text: no BOS, and never an id of ``info.special_tokens``, whatever the text contains."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text; b"" for a control token.

        A marker that is a user-defined token, as "<think>" is in some models, is text when a model writes it.
        """
        ...

    def open_adapter(self, path: Path) -> None:
        """Load an adapter beside the weights, where it stays until ``close``. Opening it again does nothing.

        May be called from any thread, for different adapters from several at once. What takes long in it, such as
        converting files, must not hold a running ``decode`` up.

        Raises AdapterError where it is damaged or does not fit this model, UnsupportedFeature where this backend or
        this model takes none; what was opened before stays open.
        """
        ...

    def decode(self, chunks: Sequence[Chunk], adapter: Adapter | None = None) -> Logits:
        """Compute new tokens of several different sequences, all of them with ``adapter``, which was opened before.

        A sequence is computed with one adapter and scale only, from its first token on; seeing to that is up to the
        caller. An adapter that was not opened is ValueError.

        Returns the rows asked for, in the order of the chunks. Raises CacheFull where there is no room, DecodeError
        where the library failed; both leave every sequence as it was before the call. Where ``info.can_cut`` is false,
        DecodeError may leave the sequences of the call empty instead.
        """
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Make the empty sequence ``target`` hold the first ``length`` tokens of ``source``, without computing them."""
        ...

    def cut(self, sequence: int, length: int) -> None:
        """Forget all but the first ``length`` tokens of a sequence."""
        ...

    def free(self, sequence: int) -> None:
        """Empty a sequence."""
        ...

    def embed(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """One vector per text (token ids, specials included), each of length 1. Shape (texts, embedding size)."""
        ...

    def encode_for_embedding(self, text: str) -> list[int]:
        """Ids of a text with the special tokens that an embedding model expects around it, cut to the context."""
        ...

    def interrupt(self) -> None:
        """Make a running ``decode`` or ``embed`` raise DecodeError soon. May be called from any thread.

        Best effort: one that cannot be stopped runs to its end, and one that comes between two calls is forgotten.
        """
        ...

    def close(self) -> None:
        """Free the weights. Closing twice does nothing."""
        ...


@runtime_checkable
class TokenizesAfter(Protocol):
    """What a backend offers besides ``tokenize``, whose tokenizer treats the beginning of a prompt in its own way."""

    def tokenize_after(self, text: str) -> list[int]:
        """Ids of plain text that stands behind a special token, where no space is put in front of it."""
        ...


class BackendModule(Protocol):
    """What a module in ``backends/`` offers. Importing it must not import its library."""

    NAME: str
    READS: str
    """What it loads, for an error's list of what can be loaded: "GGUF files"."""

    def claims(self, path: Path) -> str | None:
        """Why this backend is the one for that file or folder, or None. Reads a few bytes at most."""
        ...

    def load(self, path: Path, options: LoadOptions) -> Backend:
        """Load a checked file. Raises MissingDependency, ModelFileError or OptionError."""
        ...
