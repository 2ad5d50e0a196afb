"""Text ↔ token ids. Content never becomes a special token, whatever it contains."""

from __future__ import annotations

import ctypes
import itertools
import re
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import llama_cpp.llama_cpp as lib

from local_llms.backends.llama_cpp.native import Native
from local_llms.errors import PromptError

_SPECIAL = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN | lib.LLAMA_TOKEN_ATTR_USER_DEFINED
_KEEPING = (lib.LLAMA_VOCAB_TYPE_SPM, lib.LLAMA_VOCAB_TYPE_BPE, lib.LLAMA_VOCAB_TYPE_RWKV)
_SPACE = "\u2581"
"""How SentencePiece vocabularies write a space."""
_SENTINELS = "\n\x02\uffff|a"
"""Characters to put in front of a text so that it is not taken for the beginning of one."""


class Vocabulary:
    """The tokens of a loaded model. All methods may be used from any thread."""

    def __init__(self, native: Native, declared_bos: bool) -> None:
        """``declared_bos``: whether the file names a BOS token, rather than llama.cpp assuming one."""
        self._native = native
        self._vocab = native.vocab
        self.size: int = lib.llama_vocab_n_tokens(self._vocab)
        self.special_tokens, self._unknown, self._control = self._find_specials()
        self.swallows_before = self._with(lib.LLAMA_TOKEN_ATTR_LSTRIP)
        self.swallows_after = self._with(lib.LLAMA_TOKEN_ATTR_RSTRIP)
        # The others normalize a text before they look for words in it.
        self.keeps_bytes = lib.llama_vocab_type(self._vocab) in _KEEPING
        self._special_ids = frozenset(self.special_tokens.values())
        self._forbidden = self._special_ids - self._unknown
        self._bytes: list[bytes | None] = [None] * self.size
        for token in self._control:
            self._bytes[token] = b""
        bos = lib.llama_vocab_bos(self._vocab)
        known = 0 <= bos < self.size and (declared_bos or bos in self._special_ids)
        self.bos_id: int | None = bos if known else None
        self.adds_bos: bool = known and bool(lib.llama_vocab_get_add_bos(self._vocab))
        named = {lib.llama_vocab_eos(self._vocab), lib.llama_vocab_eot(self._vocab)}
        ends = {token for token in named if 0 <= token < self.size} | self._special_ids
        self.end_ids = frozenset(token for token in ends if lib.llama_vocab_is_eog(self._vocab, token))
        eos = lib.llama_vocab_eos(self._vocab)
        self.eos_text: str = self._text(eos) if eos in self.end_ids else ""
        self._local = threading.local()

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text. A character that the vocabulary does not have is left out."""
        ids = self.tokenize_with_unknown(text)
        if self._unknown and not self._unknown.isdisjoint(ids):
            return [token for token in ids if token not in self._unknown]
        return ids

    def tokenize_with_unknown(self, text: str) -> list[int]:
        """The same with the model's own token for what the vocabulary does not have."""
        text = _whole_characters(text)
        ids = self._tokenize(text)
        if self._forbidden.isdisjoint(ids):
            return ids
        # llama.cpp reads user-defined tokens whether or not it is to parse special ones, and a merge may end in a
        # control token. Either way the marker's text stands there: it is cut in two and comes out as plain text.
        return list(
            itertools.chain.from_iterable(
                self._plain(piece, first=number == 0) for number, piece in enumerate(self._break_markers(text))
            )
        )

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text. Raises ValueError where there is no such token."""
        if not 0 <= token_id < self.size:
            raise ValueError(f"there is no token {token_id}; the vocabulary has {self.size}")
        self._native.check_process()
        self._native.check_open()
        known = self._bytes[token_id]
        if known is None:
            known = self._bytes[token_id] = self._piece(token_id)
        return known

    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens that llama.cpp puts before and after a text: [CLS] and [SEP] for BERT."""
        plain = self._native_tokens(b"a", add_special=False)
        framed = self._native_tokens(b"a", add_special=True)
        for start in range(len(framed) - len(plain) + 1):
            if framed[start : start + len(plain)] == plain:
                return framed[:start], framed[start + len(plain) :]
        return [], []

    def _find_specials(self) -> tuple[dict[str, int], frozenset[int], frozenset[int]]:
        """Marker text → id; the ids that stand for what the vocabulary does not have; and those that add no text."""
        attributes = map(lib.llama_vocab_get_attr, itertools.repeat(self._vocab), range(self.size))
        special = {token: kind for token, kind in enumerate(attributes) if kind & _SPECIAL}
        found: dict[str, int] = {}
        for token, kind in special.items():
            text = self._text(token)
            # Runs of spaces or line ends are ordinary words that some vocabularies call user-defined.
            blank = not text.replace(_SPACE, " ").strip()
            if not (blank and kind & lib.LLAMA_TOKEN_ATTR_USER_DEFINED):
                found.setdefault(text, token)
        unknown = {token for token, kind in special.items() if kind & lib.LLAMA_TOKEN_ATTR_UNKNOWN}
        silent = {token for token, kind in special.items() if kind & ~lib.LLAMA_TOKEN_ATTR_USER_DEFINED & _SPECIAL}
        return found, frozenset(unknown) & frozenset(found.values()), frozenset(silent)

    def _with(self, attribute: int) -> frozenset[int]:
        specials = self.special_tokens.values()
        return frozenset(token for token in specials if lib.llama_vocab_get_attr(self._vocab, token) & attribute)

    def _text(self, token: int) -> str:
        text: bytes | None = lib.llama_vocab_get_text(self._vocab, token)
        return (text or b"").decode("utf-8", "replace")

    @cached_property
    def _marker(self) -> re.Pattern[str]:
        """Any marker's text, the longest first, as llama.cpp looks for them."""
        texts = sorted((text for text in self.special_tokens if len(text) > 1), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, texts)))

    @cached_property
    def _adds_space(self) -> bool:
        """Whether a text is read as if a space stood before it."""
        ids = self._tokenize("a")
        return bool(ids) and self._piece(ids[0]).startswith(b" ")

    def _break_markers(self, text: str) -> Iterator[str]:
        start = 0
        for match in self._marker.finditer(text):
            yield text[start : match.start() + 1]
            start = match.start() + 1
        yield text[start:]

    def _plain(self, text: str, first: bool) -> list[int]:
        """Ids of a piece that holds no whole marker, or hardly any: what is still one is cut again."""
        if not text:
            return []
        ids = self._tokenize(text) if first else self._continue(text)
        if self._forbidden.isdisjoint(ids):
            return ids
        if len(text) == 1:
            # Only a special token stands for this character, and content may not have it.
            return [token for token in ids if token not in self._forbidden]
        half = len(text) // 2
        return self._plain(text[:half], first) + self._plain(text[half:], first=False)

    def _continue(self, text: str) -> list[int]:
        """Ids of a text that stands in the middle of another."""
        if not self._adds_space:
            return self._tokenize(text)
        for sentinel in _SENTINELS:
            before, both = self._tokenize(sentinel), self._tokenize(sentinel + text)
            if both[: len(before)] == before:
                return both[len(before) :]
        return self._tokenize(text)

    def _tokenize(self, text: str) -> list[int]:
        return self._native_tokens(text.encode("utf-8"), add_special=False)

    def _native_tokens(self, data: bytes, add_special: bool) -> list[int]:
        with self._native:
            ids = self._buffer(min(len(data) // 2 + 64, 1 << 20))
            count = lib.llama_tokenize(self._vocab, data, len(data), ids, len(ids), add_special, False)
            if count < 0:
                if count == -(1 << 31):
                    raise PromptError(f"A text of {len(data)} bytes has more tokens than llama.cpp can count.")
                ids = self._buffer(-count)
                count = lib.llama_tokenize(self._vocab, data, len(data), ids, len(ids), add_special, False)
            return list(ids[:count])

    def _buffer(self, size: int) -> Any:
        """Room for ids, kept for the thread's next text unless it is large."""
        kept = getattr(self._local, "ids", None)
        if kept is None or len(kept) < size:
            kept = (lib.llama_token * size)()
            if size <= 1 << 16:
                self._local.ids = kept
        return kept

    def _piece(self, token: int) -> bytes:
        with self._native:
            room = 64
            while True:
                buffer = ctypes.create_string_buffer(room)
                count: int = lib.llama_token_to_piece(self._vocab, token, buffer, room, 0, False)
                if count >= 0:
                    return buffer.raw[:count]
                room = -count


def _whole_characters(text: str) -> str:
    """The text with pairs of surrogates joined, and U+FFFD for a lone one, which UTF-8 cannot express."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def check_ids(ids: Sequence[int], size: int) -> None:
    """Raise ValueError for an id that the vocabulary does not have: llama.cpp would end the process for some."""
    if min(ids) < 0 or max(ids) >= size:
        raise ValueError(f"there is no token {min(ids) if min(ids) < 0 else max(ids)}; the vocabulary has {size}")
