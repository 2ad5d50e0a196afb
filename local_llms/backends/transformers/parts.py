"""What a model is made of in this backend, whatever layout its checkpoint has.

A **layout** is a way in which checkpoints are written. It reads a folder or file and gives ``Parts``: a network, and a
vocabulary. Everything else, the sequences and their cells of the KV cache, adapters, errors, is written once above it.

A network computes **packed**: the new tokens of all sequences of a call stand one after the other, without padding, and
no sequence sees another. It is given ids, positions and an ``Attention``, which keeps keys and values; it never handles
a cache or a mask itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from local_llms.backends.base import LoadOptions

if TYPE_CHECKING:
    import torch


class Vocabulary(Protocol):
    """Text ↔ token ids. Every method may be used from any thread."""

    @property
    def size(self) -> int:
        """Ids are below it. The network may have more rows, which are padding."""
        ...

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Marker text → id of every control or user-defined token."""
        ...

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text, where there is one."""
        ...

    @property
    def adds_bos(self) -> bool:
        """Whether the model expects it in front of every prompt."""
        ...

    @property
    def eos_text(self) -> str:
        """Marker text of the token that ends a text; "" where there is none."""
        ...

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer, as far as the tokenizer's files tell."""
        ...

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that the tokenizer's files carry."""
        ...

    @property
    def swallows_before(self) -> frozenset[int]:
        """Special tokens for which the white space in front of their marker goes."""
        ...

    @property
    def swallows_after(self) -> frozenset[int]:
        """Special tokens for which the white space behind their marker goes."""
        ...

    @property
    def prompt_prefix(self) -> tuple[int, ...]:
        """Special tokens that the model expects in front of every prompt, where they are more than a BOS."""
        ...

    @property
    def prompt_suffix(self) -> tuple[int, ...]:
        """Special tokens that it expects behind every prompt."""
        ...

    def tokenize_after(self, text: str) -> list[int]:
        """The same for text that stands behind a special token, where some tokenizers put no space in front of it."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text: no BOS, and none of ``special_tokens``. A lone surrogate counts as U+FFFD."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text; b"" for a control token. ``token_id`` lies below ``size``."""
        ...


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer keeps per token: ``heads`` keys of ``key_size`` numbers and as many values of ``value_size``."""

    heads: int
    key_size: int
    value_size: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where new tokens stand, and what they see.

    ``first``: the number of tokens of the sequence, from its beginning, that are kept as they are; ``positions`` and
    ``sees`` are about all tokens from there on. It is the chunk's start, unless what was computed before must be
    computed again because it sees tokens that came only now.

    ``positions``: what the network is given, shape (n,) or (n, k), integers.
    ``sees``: per token, how many tokens of its sequence it sees, counted from the first. Shape (n,).
    """

    first: int
    positions: NDArray[np.int64]
    sees: NDArray[np.int64]


def causal(held: Sequence[int], new: Sequence[int]) -> Placement:
    """The placement of an ordinary model: positions count from 0, and a token sees those before it, and itself."""
    positions = np.arange(len(held), len(held) + len(new), dtype=np.int64)
    return Placement(len(held), positions, positions + 1)


class Attention(Protocol):
    """The attention of one call: it keeps keys and values of the new tokens, and lets each see its own sequence."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        *,
        window: int | None = None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        """One layer's attention, with rotary embedding already applied.

        ``query``: shape (tokens, heads, key size). ``key``, ``value``: (tokens, key-value heads, size); heads in
        consecutive groups share a key-value head. ``scale`` multiplies the scores. ``window``: a token sees the last
        so many tokens of what it sees. ``softcap``: scores become ``softcap * tanh(score / softcap)``.

        Returns (tokens, heads, value size). Call it once per layer, in the order of the layers. Raises DecodeError
        after an interruption.
        """
        ...

    def exchange(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For a network that computes attention itself: keep what is new, and get all that the call's tokens see.

        ``key``, ``value``: shape (tokens, key-value heads, size). Returns (cells, key-value heads, size) of each, in
        the order of ``visible``. Raises DecodeError after an interruption.
        """
        ...

    def visible(self) -> torch.Tensor:
        """Which of the cells that ``exchange`` gives each token sees; booleans of shape (tokens, cells)."""
        ...


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values that every sequence sees before its own: per layer, of shape (length, key-value heads, size).

    They shift no position (P-tuning version 2, Liu et al. 2021).
    """

    keys: Sequence[torch.Tensor]
    values: Sequence[torch.Tensor]

    @property
    def length(self) -> int:
        """Tokens that the prefix stands for."""
        return int(self.keys[0].shape[0])


class Network(Protocol):
    """A loaded network."""

    @property
    def module(self) -> torch.nn.Module:
        """All weights, for adapters and for counting."""
        ...

    @property
    def layers(self) -> Sequence[LayerShape]:
        """One per layer that calls ``attend``, in order."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """Logits of a row."""
        ...

    def place(self, held: Sequence[int], new: Sequence[int]) -> Placement:
        """Where ``new`` tokens of a sequence that holds ``held`` stand; ``causal`` for an ordinary model."""
        ...

    def settled(self, ids: Sequence[int]) -> bool:
        """Whether the keys and values of a sequence's first tokens stay as they are, whatever follows.

        Always true of an ordinary model. Where it is not, they are computed only when a row is asked for, from what
        precedes each token, and are computed again once it is.
        """
        ...

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, attention: Attention, rows: torch.Tensor
    ) -> torch.Tensor:
        """Compute packed tokens.

        ``ids``: shape (tokens,). ``positions``: those of ``place``, one after the other. ``rows``: which tokens' logits
        are wanted, shape (r,), r at least 1. Returns (r, vocabulary size). Called without gradients.
        """
        ...


class LoadedAdapter(Protocol):
    """A change of the weights that lies beside them and is switched on for a call."""

    @property
    def prefix(self) -> Prefix | None:
        """What every sequence sees first, where the adapter is of that kind."""
        ...

    def active(self, scale: float) -> AbstractContextManager[None]:
        """Change the network inside the block; afterwards it is the base again, exactly."""
        ...


AdapterReader = Callable[[Path, Network], LoadedAdapter | None]
"""Reads an adapter for a network; None where the folder is not of its kind. Raises AdapterError, ModelFileError."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A loaded model: network and vocabulary, and what the checkpoint says of them.

    - ``parameters``: the number of weights.
    - ``longest_context``: the most positions that the network can tell apart; None where that has no bound.
    - ``end_ids``: those that the model's own configuration names; the vocabulary's count as well.
    - ``adapter_readers`` are asked before the reader of PEFT folders.
    - ``template``, ``bidirectional_until``, ``vocabulary_name``: as in ``BackendInfo``, the last as ``vocabulary``.
    """

    network: Network
    vocabulary: Vocabulary
    architecture: str
    trained_context_length: int
    parameters: int
    longest_context: int | None = None
    name: str = ""
    quantization: str = ""
    end_ids: frozenset[int] = frozenset()
    batch_tokens: int = 512
    adapter_readers: Sequence[AdapterReader] = field(default=())
    template: str | None = None
    bidirectional_until: int | None = None
    vocabulary_name: str = ""


class Layout(Protocol):
    """What a module offers that reads one way of writing checkpoints. Importing it imports no heavy library."""

    def claims(self, path: Path) -> str | None:
        """Why this layout is the one for that folder or file, or None. Reads little."""
        ...

    def load(self, path: Path, options: LoadOptions) -> Parts:
        """Read a checkpoint. Raises MissingDependency, ModelFileError, OptionError or UnsupportedFeature."""
        ...
