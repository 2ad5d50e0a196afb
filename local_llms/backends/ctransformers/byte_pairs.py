"""Byte-level BPE vocabularies, as the GGML files of GPT-NeoX and GPT-J carry them.

The files hold the tokens' bytes and no list of merges. It is not missed: tokens are numbered in the order in which they
were merged in training, so a token's number is its rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from local_llms.backends.ctransformers.merging import merge
from local_llms.backends.ctransformers.pieces import single_bytes
from local_llms.backends.ctransformers.splitting import words
from local_llms.backends.ctransformers.vocabulary import Vocabulary

LOST = "\N{REPLACEMENT CHARACTER}".encode()
"""What stands in a file for bytes that are no whole character."""
END_OF_TEXT = "<|endoftext|>"

_BYTE_ORDER = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTE_ORDER += [byte for byte in range(0x100) if byte not in _BYTE_ORDER]
"""The order in which such vocabularies have the tokens of single bytes (openai/gpt-2, src/encoder.py)."""
_PRINTABLE = [bytes([byte]) for byte in range(0x21, 0x7F)]


class ByteVocabulary(Vocabulary):
    """Words are split as GPT-2's pattern says, and merged inside.

    ggml's converter for GPT-NeoX wrote the text of tokens instead of their bytes, with U+FFFD for what is no whole
    character. Tokens of single bytes are restored by their places. What others were nobody can tell: their text stays
    U+FFFD, and tokenizing never gives them.
    """

    def __init__(self, tokens: Sequence[bytes]) -> None:
        """``tokens``: the bytes of each id, empty for ids that stand for nothing."""
        is_lossy = sum(text == LOST for text in tokens) > 1
        if is_lossy:
            tokens = _with_single_bytes(tokens)
        special = {text.decode(): number for number, text in enumerate(tokens) if _is_marker(text)}
        super().__init__(tokens, special)
        self._of: dict[bytes, int] = {}
        for number, text in enumerate(self._bytes):
            if text and not (is_lossy and LOST in text):
                self._of.setdefault(text, number)
        self._runs = _added_runs(self._bytes)
        patterns = sorted((text.decode() for text in self._runs), key=len, reverse=True)
        self._run = re.compile("|".join(patterns)) if patterns else None
        if END_OF_TEXT in special:
            self.bos_id = special[END_OF_TEXT]
            self.end_ids = frozenset({special[END_OF_TEXT]})
            self.eos_text = END_OF_TEXT

    def _words(self, text: str) -> Iterator[str]:
        """Runs of blanks that were added to the vocabulary are looked for first, as GPT-NeoX's tokenizer does."""
        done = 0
        for match in self._run.finditer(text) if self._run else ():
            yield from words(text[done : match.start()])
            yield match.group()
            done = match.end()
        yield from words(text[done:])

    def _ids(self, word: str) -> list[int]:
        data = word.encode()
        if data in self._runs:
            return [self._runs[data]]
        return [self._of[piece] for piece in merge(single_bytes(data), self._of.get) if piece in self._of]


def _is_marker(text: bytes) -> bool:
    """Whether merging cannot have made a token: it is more than one word, as "<|endoftext|>" and "### End" are."""
    if len(text) < 2 or LOST in text:
        return False
    try:
        return len(list(words(text.decode()))) > 1
    except UnicodeDecodeError:
        return False


def _with_single_bytes(tokens: Sequence[bytes]) -> list[bytes]:
    """The tokens with those of single bytes restored, found by the row of the printable ones."""
    restored = list(tokens)
    for first in range(min(len(restored), 1000)):
        if restored[first : first + len(_PRINTABLE)] == _PRINTABLE:
            for number, byte in enumerate(_BYTE_ORDER[: len(restored) - first], start=first):
                if restored[number] == LOST:
                    restored[number] = bytes([byte])
            break
    return restored


def _added_runs(tokens: Iterable[bytes]) -> dict[bytes, int]:
    """Runs of blanks behind all other tokens: they were added, in the order of their lengths, and not merged."""
    runs: dict[bytes, int] = {}
    for number, text in reversed(list(enumerate(tokens))):
        if not text:
            continue
        if text.strip(b" ") or len(text) < 2:
            break
        runs[text] = number
    return runs
