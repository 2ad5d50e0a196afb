"""ChatGLM-6B's vocabulary, ``ice_text.model``: SentencePiece with pieces of its own for whitespace.

A newline, a tab and runs of 2 to 80 spaces are written as pieces before SentencePiece reads the text, and the special
tokens are pieces as well (``SPTokenizer`` in ``tokenization_chatglm.py`` of THUDM/chatglm-6b). The library
``sentencepiece`` reads the model: its pieces carry scores of a unigram language model and rules for normalizing text.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from local_llms.backends.transformers.chatglm.marks import Marked
from local_llms.backends.transformers.files import TOKENIZER_BYTES, read_bytes
from local_llms.backends.transformers.pieces import sentence_piece
from local_llms.backends.transformers.tokenizer_json import whole_characters
from local_llms.backends.transformers.tokenizer_model import (
    CONTROL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Piece,
    read_pieces,
)
from local_llms.errors import MissingDependency, ModelFileError

FILE = "ice_text.model"

GMASK, START, END = "[gMASK]", "<sop>", "<eop>"

MARKERS = frozenset(("[MASK]", GMASK, "[sMASK]", "<unused_0>", START, END, "<ENC>", "<dBLOCK>"))
"""Pieces that are special tokens, whatever type the model gives them."""

WHITESPACE = {"\n": "<n>", "\t": "<|tab|>", **{" " * length: f"<|blank_{length}|>" for length in range(2, 81)}}
"""What is written as a piece of its own."""

_SENTINEL = "\n"
"""To be put in front of a text that stands in the middle of another, so that no space is added to it."""


class IceVocabulary(Marked):
    """Implements ``Vocabulary``. All methods may be used from any thread."""

    def __init__(self, path: Path, gmask_id: int | None) -> None:
        """``gmask_id``: the id that the network's configuration has for ``[gMASK]``.

        The first releases numbered pieces from 20,000 on, behind tokens for images; that id tells. Raises
        MissingDependency and ModelFileError.
        """
        if importlib.util.find_spec("sentencepiece") is None:
            raise MissingDependency("sentencepiece", extra="transformers", purpose=f"Reading {FILE}")
        from sentencepiece import SentencePieceProcessor

        data = bytearray(read_bytes(path, TOKENIZER_BYTES))
        self._pieces = read_pieces(bytes(data), path)
        numbers = {piece.text: number for number, piece in enumerate(self._pieces)}
        self._first = (numbers.get(GMASK, 0) if gmask_id is None else gmask_id) - numbers.get(GMASK, 0)
        if not {GMASK, START, END} <= numbers.keys() or self._first < 0:
            raise ModelFileError(
                f"{path} does not fit its config.json: it has no {GMASK} where that says, or no {START} and {END}. "
                "Take both files from one release of the model."
            )
        specials = {piece.text: self._first + number for number, piece in enumerate(self._pieces) if _special(piece)}
        super().__init__(specials, ends=(END,), suffix=(GMASK, START))
        self.size = self._first + len(self._pieces)
        # A user-defined piece is found in any text; an unused one in none. The type is a single byte.
        for piece in self._pieces:
            if piece.text in MARKERS and piece.type_at is not None and piece.kind == USER_DEFINED:
                data[piece.type_at] = UNUSED
        try:
            self._processor = SentencePieceProcessor(model_proto=bytes(data))
        except (RuntimeError, OSError) as error:
            raise ModelFileError(f"{path} is damaged: sentencepiece says: {error}. Fetch it again.") from None
        self._unknown: int = self._processor.unk_id()
        self._written = {text: piece for text, piece in WHITESPACE.items() if piece in numbers}
        self._meant = {piece: text for text, piece in self._written.items()}
        self._whitespace, self._literal = _any_of(self._written), _any_of(self._meant)
        self._sentinel = self._encode(_SENTINEL)

    def tokenize_after(self, text: str) -> list[int]:
        """The same: a text is read alike wherever it stands."""
        return self.tokenize(text)

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text. A character that the vocabulary does not have is left out.

        A text that spells a piece for whitespace, such as ``<n>``, stays that text: it is read in two halves.
        """
        first, *others = self._broken(whole_characters(text))
        pieces = [*self._encode(first), *itertools.chain.from_iterable(map(self._continue, others))]
        return [self._first + piece for piece in pieces if piece != self._unknown]

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text; b"" for a special token, and for an id that no piece has."""
        number = token_id - self._first
        if not 0 <= number < len(self._pieces):
            return b""
        piece = self._pieces[number]
        if _special(piece) or piece.kind == UNUSED:
            return b""
        meant = self._meant.get(piece.text)
        return sentence_piece(piece.text) if meant is None else meant.encode()

    def _broken(self, text: str) -> Iterator[str]:
        """The text in parts, none of which spells a piece for whitespace."""
        start = 0
        for match in self._literal.finditer(text):
            yield text[start : match.start() + 1]
            start = match.start() + 1
        yield text[start:]

    def _continue(self, text: str) -> list[int]:
        pieces = self._encode(_SENTINEL + text)
        known = len(self._sentinel)
        return pieces[known:] if pieces[:known] == self._sentinel else self._encode(text)

    def _encode(self, text: str) -> list[int]:
        pieces: list[int] = self._processor.encode(self._whitespace.sub(lambda match: self._written[match[0]], text))
        return pieces


def _special(piece: Piece) -> bool:
    return piece.kind in (CONTROL, UNKNOWN) or piece.text in MARKERS


def _any_of(texts: Collection[str]) -> re.Pattern[str]:
    """Any of the texts, the longest first; what is nowhere, where there are none."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
