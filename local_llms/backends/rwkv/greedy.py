"""Vocabularies that are read greedily: at each place of a text the longest token that stands there.

RWKV's World vocabulary, and that of single bytes which the small test models of rwkv.cpp have.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from local_llms.errors import MissingDependency, ModelFileError

WORLD_FILE = "rwkv_vocab_v20230424.txt"
END = "<|endoftext|>"
"""What the World vocabulary calls its token 0, which stands for no bytes."""


class GreedyVocabulary:
    """Text ↔ ids. All methods may be used from any thread."""

    chat_template: None = None
    bos_id: None = None
    adds_bos = False

    def __init__(self, tokens: Mapping[int, bytes], special_tokens: Mapping[str, int], eos_text: str = "") -> None:
        """``tokens``: id → its bytes; every single byte is one of them."""
        self.special_tokens = special_tokens
        self.eos_text = eos_text
        self.end_ids = frozenset({special_tokens[eos_text]} if eos_text else ())
        self.size = 1 + max([*tokens, *special_tokens.values()])
        self._tokens = tokens
        self._ids = {text: token for token, text in tokens.items()}
        lengths: dict[bytes, set[int]] = {}
        for text in self._ids:
            if len(text) > 1:
                lengths.setdefault(text[:2], set()).add(len(text))
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text. Pairs of surrogates are joined; a lone one counts as U+FFFD."""
        return self.encode(_utf8(text))

    def encode(self, data: bytes) -> list[int]:
        """Ids of bytes, which need not be text."""
        ids, known, place, end = self._ids, self._lengths, 0, len(data)
        found: list[int] = []
        while place < end:
            token = None
            for length in known.get(data[place : place + 2], ()):
                token = ids.get(data[place : place + length])
                # A slice at the end is shorter than was asked for: a shorter token may have matched.
                if token is not None:
                    place += min(length, end - place)
                    break
            if token is None:
                token = ids[data[place : place + 1]]
                place += 1
            found.append(token)
        return found

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text; b"" for the end, and for an id that no token has."""
        return self._tokens.get(token_id, b"")


def byte_vocabulary() -> GreedyVocabulary:
    """256 tokens, each its byte; nothing is special."""
    return GreedyVocabulary({byte: bytes((byte,)) for byte in range(256)}, {})


def world_file(folder: Path) -> Path:
    """The file of the World vocabulary: in that folder, else in the installed rwkv package. Imports none of its code.

    Raises MissingDependency where neither has it.
    """
    beside = folder / WORLD_FILE
    if beside.is_file():
        return beside
    spec = find_spec("rwkv")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / WORLD_FILE
        if path.is_file():
            return path
    raise MissingDependency("rwkv", extra="rwkv", purpose="The World vocabulary of RWKV")


def world_vocabulary(path: Path) -> GreedyVocabulary:
    """Read a vocabulary file of RWKV. Raises ModelFileError for a damaged one."""
    try:
        status = path.stat()
        return _world(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error


@lru_cache(maxsize=2)
def _world(path: Path, size: int, modified: int) -> GreedyVocabulary:
    """Each line is an id, the token as Python writes a text or bytes, and the number of its bytes."""
    tokens: dict[int, bytes] = {}
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
        try:
            first, rest = line.split(" ", 1)
            literal, length = rest.rsplit(" ", 1)
            value = ast.literal_eval(literal.strip())
            token, text = int(first), value.encode() if isinstance(value, str) else value
            sound = isinstance(text, bytes) and len(text) == int(length) and 0 < token < 1 << 20
        except (ValueError, SyntaxError, MemoryError, RecursionError, UnicodeError):
            sound = False
        if not sound or token in tokens:
            raise ModelFileError(f"{path} is no vocabulary of RWKV: line {number} is damaged. Fetch it again.")
        tokens[token] = text
    lacking = set(range(256)) - {text[0] for text in tokens.values() if len(text) == 1}
    if lacking:
        raise ModelFileError(f"{path} is no vocabulary of RWKV: {len(lacking)} bytes have no token. Fetch it again.")
    return GreedyVocabulary(tokens, {END: 0}, END)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
