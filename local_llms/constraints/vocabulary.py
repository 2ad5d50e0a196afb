"""A loaded model's vocabulary as llguidance wants it: once per model, from its tokens' bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from local_llms.backends.base import BackendInfo
from local_llms.errors import MissingDependency

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_SPECIAL = b"\xff"
"""What llguidance knows a special token by: a byte that no text has, in front of its name."""


class Tokenizer(Protocol):
    """The part of a backend that is needed here."""

    @property
    def info(self) -> BackendInfo:
        """Size of the vocabulary, and special tokens."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text."""
        ...


def build(backend: Tokenizer) -> LLTokenizer:
    """Takes a second for 150,000 tokens. Raises MissingDependency.

    Beside the model's own tokens there is one more, which stands for the end of the answer: models have several end
    tokens, or none, and llguidance knows one.
    """
    try:
        from llguidance import LLTokenizer, TokenizerWrapper
    except ImportError as error:
        raise MissingDependency("llguidance", extra="structured", purpose="Constrained generation") from error
    return LLTokenizer(TokenizerWrapper(_Vocabulary(backend)))


class _Vocabulary:
    """What llguidance asks a tokenizer for."""

    def __init__(self, backend: Tokenizer) -> None:
        size = backend.info.vocabulary_size
        self.tokens = [backend.token_bytes(token) for token in range(size)]
        # Those with a text of their own, such as "<think>", are written like any text.
        self.special_token_ids: list[int] = []
        for marker, token in backend.info.special_tokens.items():
            if not self.tokens[token]:
                self.tokens[token] = _SPECIAL + marker.encode()
                self.special_token_ids.append(token)
        self.tokens.append(_SPECIAL + b"<|end of the answer|>")
        self.special_token_ids.append(size)
        self.eos_token_id = size
        self.bos_token_id = None
        self._tokenize: Callable[[str], list[int]] = backend.tokenize
        self._ids = {piece: token for token, piece in reversed(list(enumerate(self.tokens))) if piece}
        self._longest = max(map(len, self._ids))

    def __call__(self, data: bytes) -> list[int]:
        """The tokens of what a grammar forces to come: those that the model knows the text by, where they fit it."""
        ids = self._tokenize(data.decode("utf-8", "replace"))
        # A tokenizer may put a space in front of a text; here the text stands in the middle of another.
        return ids if b"".join(self.tokens[token] for token in ids) == data else self._greedy(data)

    def _greedy(self, data: bytes) -> list[int]:
        """The longest token that fits, again and again; up to a byte that the vocabulary does not have."""
        ids: list[int] = []
        place = 0
        while place < len(data):
            lengths = range(min(self._longest, len(data) - place), 0, -1)
            length = next((length for length in lengths if data[place : place + length] in self._ids), None)
            if length is None:
                break
            ids.append(self._ids[data[place : place + length]])
            place += length
        return ids
