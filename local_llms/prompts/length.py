"""Texts that cannot fit into a context are refused before they are tokenized.

SentencePiece as llama.cpp does it takes the square of a text's length where the vocabulary lacks its characters:
100,000 emoji took 13 seconds. But a token has a longest length in bytes, and a character that no token contains needs
one token at least, since a token ends inside of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

from local_llms.backends.base import BackendInfo
from local_llms.errors import ContextOverflow

CHECKED_CHARACTERS = 4_096
"""Shorter texts are tokenized in no time."""

_KEPT = 8
_BLOCK = 1 << 16


class Vocabulary(Protocol):
    """The part of a backend that is needed here."""

    @property
    def info(self) -> BackendInfo:
        """Special tokens, and what the model's tokenizer does with a text."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for."""
        ...


def check_length(texts: Sequence[str], vocabulary: Vocabulary, room: int) -> None:
    """Raise ContextOverflow where the texts have ``room`` tokens or more, whatever the tokenizer will find.

    Nothing is done for short texts, and for a tokenizer that changes texts (``keeps_bytes``).
    """
    size = sum(map(len, texts))
    # A character has four bytes at most, and a token one at least.
    if not vocabulary.info.keeps_bytes or size < max(CHECKED_CHARACTERS, room // 4):
        return
    known = _words(vocabulary)
    least = sum(known.fewest_tokens(text) for text in texts)
    if least >= room:
        hint = "That many at least: it was not tokenized. Shorten it, or load the model with a larger context_length."
        raise ContextOverflow(least, room, hint)


@dataclass(frozen=True, slots=True)
class _Words:
    """What the tokens of a vocabulary can say: the longest one, in bytes, and the characters in any of them.

    ``complete``: every byte is a token, so that nothing of a text has to be left out.
    """

    special_tokens: object
    complete: bool
    longest: int
    characters: frozenset[str]

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> _Words:
        words = [vocabulary.token_bytes(token) for token in range(vocabulary.info.vocabulary_size)]
        characters = frozenset("".join(word.decode("utf-8", "ignore") for word in words))
        bytes_told = {word for word in words if len(word) == 1}
        return cls(vocabulary.info.special_tokens, len(bytes_told) == 256, max(map(len, words)), characters)

    def fewest_tokens(self, text: str) -> int:
        """A number of tokens that the text has at least."""
        if not self.complete:
            return 0
        lacking, rest = 0, 0
        for start in range(0, len(text), _BLOCK):
            block = text[start : start + _BLOCK]
            without = [character for character in set(block) if character not in self.characters]
            counts = {character: block.count(character) for character in without}
            lacking += sum(counts.values())
            rest += len(block.encode()) - sum(count * len(character.encode()) for character, count in counts.items())
        return max(lacking, -(-rest // self.longest))


_cache: list[_Words] = []
_lock = Lock()


def _words(vocabulary: Vocabulary) -> _Words:
    """What is known of a vocabulary, kept for those used last; one is known by its mapping of special tokens."""
    for known in _cache:
        if known.special_tokens is vocabulary.info.special_tokens:
            return known
    built = _Words.of(vocabulary)
    with _lock:
        _cache[:] = [built, *_cache[: _KEPT - 1]]
    return built
