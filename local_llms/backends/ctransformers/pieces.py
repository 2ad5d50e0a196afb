"""SentencePiece vocabularies, as LLaMA's GGML files carry them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from local_llms.backends.ctransformers.merging import merge
from local_llms.backends.ctransformers.vocabulary import Vocabulary

UNKNOWN, BEGIN, END = 0, 1, 2
"""How LLaMA numbers its three special tokens; the files leave their texts out."""
ADDED_SCORE = -1000.0
"""The score that llama.cpp's convert.py (2023) gives to tokens that were added to a vocabulary, which come last."""


class PieceVocabulary(Vocabulary):
    """Pieces with scores, and a token for each byte. A space stands before every text."""

    bos_id = BEGIN
    adds_bos = True
    end_ids = frozenset({END})
    eos_text = "</s>"

    def __init__(self, tokens: Sequence[bytes], scores: Sequence[float]) -> None:
        """``scores`` may be empty: LLaMA's pieces are numbered by their scores, so that the number says as much."""
        special = {"<unk>": UNKNOWN, "<s>": BEGIN, "</s>": END}
        for number in _added(tokens, scores):
            special.setdefault(tokens[number].decode("utf-8", "replace"), number)
        super().__init__(tokens, special)
        self._scores = scores or [-float(number) for number in range(len(tokens))]
        # Of two tokens with the same bytes the later one is the piece, and the other the fallback for that byte.
        self._of = {text: number for number, text in enumerate(self._bytes) if text}
        crossed = any(b" " in text.lstrip(b" ") for text in self._of)
        self._part = re.compile(".+" if crossed else " *[^ ]+| +", re.DOTALL)

    def _words(self, text: str) -> Iterable[str]:
        """Where no piece has a space behind another character, merging never crosses the beginning of a word."""
        return self._part.findall(" " + text) if text else ()

    def _ids(self, word: str) -> list[int]:
        return list(self._numbers(merge([character.encode() for character in word], self._rank)))

    def _rank(self, piece: bytes) -> float | None:
        number = self._of.get(piece)
        return None if number is None else -self._scores[number]

    def _numbers(self, pieces: Iterable[bytes]) -> Iterator[int]:
        for piece in pieces:
            if piece in self._of:
                yield self._of[piece]
            else:
                yield from (self._of[byte] for byte in single_bytes(piece) if byte in self._of)


def single_bytes(data: bytes) -> list[bytes]:
    """Each byte by itself."""
    return [data[at : at + 1] for at in range(len(data))]


def _added(tokens: Sequence[bytes], scores: Sequence[float]) -> Iterator[int]:
    """The ids of added tokens, from the last one backwards."""
    for number in range(len(scores) - 1, END, -1):
        if scores[number] != ADDED_SCORE or not tokens[number]:
            return
        yield number
