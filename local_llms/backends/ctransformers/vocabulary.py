"""Text ↔ token ids from the vocabulary in a GGML file. Content never becomes a special token, whatever it contains.

The library has tokenizers of its own, which are not used: they take markers in a text for special tokens, and split
GPT-NeoX's and GPT-J's words greedily, which gives other ids than the models were trained on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

_KEPT_WORDS = 20_000
_LONGEST_KEPT = 64


class Vocabulary(ABC):
    """What both kinds share. ``tokenize`` and ``token_bytes`` may be used from any thread.

    ``special_tokens``: marker text → id of the tokens that content must not become. ``bos_id``, ``adds_bos``,
    ``end_ids`` and ``eos_text`` are as in ``BackendInfo``.
    """

    bos_id: int | None = None
    adds_bos = False
    end_ids: frozenset[int] = frozenset()
    eos_text = ""

    def __init__(self, tokens: Sequence[bytes], special_tokens: Mapping[str, int]) -> None:
        """``tokens``: the bytes of each id; those of special tokens are never given."""
        self.size = len(tokens)
        self.special_tokens = dict(special_tokens)
        self._special_ids = frozenset(special_tokens.values())
        self._bytes = [b"" if number in self._special_ids else text for number, text in enumerate(tokens)]
        self._known: dict[str, list[int]] = {}

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text. Raises ValueError where there is no such token."""
        if not 0 <= token_id < self.size:
            raise ValueError(f"there is no token {token_id}; the vocabulary has {self.size}")
        return self._bytes[token_id]

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text. A byte that the vocabulary does not have is left out."""
        ids: list[int] = []
        for word in self._words(_whole_characters(text)):
            found = self._known.get(word)
            if found is None:
                found = self._ids(word)
                if len(word) <= _LONGEST_KEPT:
                    if len(self._known) >= _KEPT_WORDS:
                        self._known = {}
                    self._known[word] = found
            ids.extend(found)
        return ids

    @abstractmethod
    def _words(self, text: str) -> Iterable[str]:
        """The parts of a text that merging does not cross."""

    @abstractmethod
    def _ids(self, word: str) -> list[int]:
        """The ids of one part."""


def _whole_characters(text: str) -> str:
    """The text with pairs of surrogates joined, and U+FFFD for a lone one, which UTF-8 cannot express."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
