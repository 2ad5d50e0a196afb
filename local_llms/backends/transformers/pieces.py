"""What a token of a vocabulary adds to a text, in bytes.

Vocabularies write their tokens in a few ways: byte-level ones (GPT-2) stand for every byte by a printable character;
SentencePiece's write a space as U+2581 and a single byte as ``<0x0A>``; WordPiece marks continuations by ``##``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

SPACE = "\u2581"
"""How SentencePiece vocabularies write a space."""

PieceBytes = Callable[[str], bytes]

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_alphabet() -> dict[str, int]:
    """Character → byte, of byte-level vocabularies.

    Printable characters of Latin-1 stand for themselves; the other bytes follow from U+0100 on, in order
    (openai/gpt-2: src/encoder.py, ``bytes_to_unicode``).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + place): byte for place, byte in enumerate(others)})
    return alphabet


def byte_level(piece: str, alphabet: Mapping[str, int]) -> bytes:
    """The bytes of a byte-level token; a character that is none of the alphabet's counts as itself."""
    return b"".join(bytes((alphabet[sign],)) if sign in alphabet else sign.encode() for sign in piece)


def sentence_piece(piece: str) -> bytes:
    """The bytes of a token of a SentencePiece vocabulary."""
    match = _BYTE.fullmatch(piece)
    return bytes((int(match[1], 16),)) if match else piece.replace(SPACE, " ").encode()


def reader_of(decoder: Any) -> PieceBytes:
    """How to read the tokens of a vocabulary with that ``decoder``, as a tokenizer.json describes it."""
    steps = {step.get("type"): step for step in _steps(decoder)}
    if "ByteLevel" in steps:
        alphabet = byte_alphabet()
        return lambda piece: byte_level(piece, alphabet)
    if "WordPiece" in steps:
        mark = str(steps["WordPiece"].get("prefix", "##"))
        return lambda piece: (piece[len(mark) :] if piece.startswith(mark) else f" {piece}").encode()
    if "BPEDecoder" in steps:
        suffix = str(steps["BPEDecoder"].get("suffix", "</w>"))
        return lambda piece: (f"{piece[: -len(suffix)]} " if suffix and piece.endswith(suffix) else piece).encode()
    if steps.keys() & {"Metaspace", "ByteFallback", "Replace"}:
        return sentence_piece
    # Without a decoder the library joins tokens with spaces.
    return (lambda piece: f" {piece}".encode()) if not steps else str.encode


def _steps(decoder: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(decoder, dict):
        if decoder.get("type") == "Sequence":
            for step in decoder.get("decoders") or ():
                yield from _steps(step)
        else:
            yield decoder
