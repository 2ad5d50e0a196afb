"""The vocabulary in a SentencePiece ``tokenizer.model``, as LLaMA's original checkpoints have it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from local_llms.backends.transformers.files import TOKENIZER_BYTES, read_bytes
from local_llms.backends.transformers.pieces import SPACE, sentence_piece
from local_llms.backends.transformers.tokenizer_facts import AddedToken, TokenizerFacts, swallowing
from local_llms.backends.transformers.tokenizer_json import whole_characters
from local_llms.errors import MissingDependency, ModelFileError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of pieces (google/sentencepiece: src/sentencepiece_model.proto)."""

_NO_SPACE = b"\x1a\x02\x18\x00"
"""Behind a model: ``add_dummy_prefix`` (3) of its ``normalizer_spec`` (3) is false. What comes twice is merged."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of a model. ``type_at``: where in the file its type stands; None where it is NORMAL by default."""

    text: str
    kind: int
    type_at: int | None


class SentencePieceVocabulary:
    """Implements ``Vocabulary`` over a SentencePiece model; tokens may be added on top of it."""

    def __init__(self, path: Path, facts: TokenizerFacts) -> None:
        """Raises MissingDependency and ModelFileError."""
        if importlib.util.find_spec("sentencepiece") is None:
            raise MissingDependency("sentencepiece", extra="transformers", purpose="Reading a tokenizer.model")
        from sentencepiece import SentencePieceProcessor

        data = bytearray(read_bytes(path, TOKENIZER_BYTES))
        self._pieces = read_pieces(bytes(data), path)
        own = {
            token: AddedToken(piece.text, piece.kind in (CONTROL, UNKNOWN))
            for token, piece in enumerate(self._pieces)
            if piece.kind in (CONTROL, UNKNOWN) or (piece.kind == USER_DEFINED and not _is_blank(piece.text))
        }
        self._marks = {**own, **facts.added}
        self.size = 1 + max([len(self._pieces) - 1, *self._marks])
        self.special_tokens: Mapping[str, int] = {entry.text: token for token, entry in self._marks.items()}
        self.swallows_before, self.swallows_after = swallowing(self._marks)
        # A user-defined piece is found in any text; an unused one in none. The type is a single byte.
        for token in own:
            place = self._pieces[token].type_at
            if place is not None and data[place] == USER_DEFINED:
                data[place] = UNUSED
        bare = bytes(data) + _NO_SPACE
        try:
            self._processor = SentencePieceProcessor(model_proto=bare if facts.adds_space is False else bytes(data))
            self._after = self._processor if facts.legacy else SentencePieceProcessor(model_proto=bare)
        except (RuntimeError, OSError) as error:
            raise ModelFileError(f"{path} is damaged: sentencepiece says: {error}. Fetch it again.") from None
        self._unknown: int = self._processor.unk_id()
        self.bos_id = self._id(facts.bos, self._processor.bos_id())
        self.adds_bos = self.bos_id is not None and facts.adds_bos is not False
        eos = self._id(facts.eos, self._processor.eos_id())
        self.end_ids = frozenset() if eos is None else frozenset({eos})
        self.eos_text = self._marks[eos].text if eos in self._marks else ""
        self.chat_template = facts.chat_template
        self.prompt_prefix: tuple[int, ...] = ()
        self.prompt_suffix: tuple[int, ...] = ()

    @classmethod
    def of(cls, folder: Path) -> SentencePieceVocabulary:
        """That of a checkpoint's folder. Raises MissingDependency and ModelFileError."""
        return cls(folder / "tokenizer.model", TokenizerFacts.of(folder))

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text. A character that the vocabulary does not have is left out."""
        return self._ids(self._processor, text)

    def tokenize_after(self, text: str) -> list[int]:
        """The same behind a special token, where newer models have no space in front."""
        return self._ids(self._after, text)

    def _ids(self, processor: SentencePieceProcessor, text: str) -> list[int]:
        ids: list[int] = processor.encode(whole_characters(text))
        return [token for token in ids if token != self._unknown] if self._unknown in ids else ids

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text; b"" for a control token, and for an id that no token has."""
        mark = self._marks.get(token_id)
        if mark is not None:
            return b"" if mark.control else mark.text.encode()
        if token_id >= len(self._pieces) or self._pieces[token_id].kind == UNUSED:
            return b""
        return sentence_piece(self._pieces[token_id].text)

    def _id(self, text: str | None, default: int) -> int | None:
        """The token that a text names, else the model's own; None where it has none."""
        named = self.special_tokens.get(text) if text is not None else None
        return named if named is not None else default if default >= 0 else None


def _is_blank(text: str) -> bool:
    return not text.replace(SPACE, " ").strip()


def read_pieces(data: bytes, path: Path) -> list[Piece]:
    """The entries of a model file, in the order of their ids. Raises ModelFileError."""
    pieces: list[Piece] = []
    try:
        for number, start, end in _fields(data, 0, len(data)):
            if number == 1:
                text, kind, place = "", NORMAL, None
                for inner, begin, stop in _fields(data, start, end):
                    if inner == 1:
                        text = data[begin:stop].decode("utf-8")
                    elif inner == 3:
                        kind, place = _varint(data, begin)[0], begin
                pieces.append(Piece(text, kind, place))
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise ModelFileError(f"{path} is damaged: it is no SentencePiece model ({error}). Fetch it again.") from None
    if not pieces:
        raise ModelFileError(f"{path} is damaged: it has no tokens. Fetch it again.")
    return pieces


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end of the value) of each field of a protocol buffer message in ``data[start:end]``."""
    while start < end:
        key, start = _varint(data, start)
        kind = key & 7
        begin = start
        if kind == 0:
            start = _varint(data, start)[1]
        elif kind == 1:
            start += 8
        elif kind == 2:
            length, begin = _varint(data, start)
            start = begin + length
        elif kind == 5:
            start += 4
        else:
            raise ValueError(f"a field of wire type {kind}")
        if start > end:
            raise ValueError("a field that goes past the end")
        yield key >> 3, begin, start


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits per byte, and the place after it."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
