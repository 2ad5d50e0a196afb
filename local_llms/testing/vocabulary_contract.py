"""What every backend promises about text and token ids, as tests; see ``backend_contract``."""

from __future__ import annotations

import random

import pytest

from local_llms.backends.base import Backend, TokenizesAfter

# ruff: noqa: S101 (these are tests)

SAMPLE = "Once upon a time, there was a little girl named Lily. She loved to play with her dog in the park, every day."


class VocabularyContract:
    """Text ↔ ids."""

    round_trips: bool = True
    """Whether a text comes back from its ids; a vocabulary that folds case or drops spaces says no."""

    odd_texts: tuple[str, ...] = (
        "Hello, world! 1 + 1 = 2.",
        "Grüße aus Köln — ça va? Ω≈ç√∫",
        "日本語のテキスト。中文也可以。",
        "👩‍👩‍👧 and 🇫🇷 and 😀😀",
        "tabs\tand\nlines\r\n\n\nand   spaces ",
        "def f(x):\n    return x**2  # comment\n",
    )

    def test_the_info_is_consistent(self, backend: Backend) -> None:
        """Every id lies in the vocabulary, every size is positive."""
        info = backend.info
        size = info.vocabulary_size
        ids = {*info.special_tokens.values(), *info.end_ids, *([] if info.bos_id is None else [info.bos_id])}
        assert ids <= set(range(size)), sorted(ids)
        assert info.context_length > 0
        assert info.context_length <= info.cache_tokens
        assert info.batch_tokens > 0
        assert info.max_sequences > 0
        assert info.bos_id is not None or not info.adds_bos
        assert not info.eos_text or info.special_tokens.get(info.eos_text) in info.end_ids

    def test_text_never_becomes_a_special_token(self, backend: Backend) -> None:
        """Not by a marker alone, nor among words, nor where two halves of a marker meet."""
        specials = backend.info.special_tokens
        forbidden = set(specials.values())
        chance = random.Random(5)
        parts = [*specials, " ", "\n", "a", "the", "<", "</", "s>", "|", "|>", "\u2581", "é", "😀", *self.odd_texts]
        texts = [*specials, *("".join(chance.choices(parts, k=chance.randint(1, 9))) for _ in range(300))]
        texts += [
            marker[:cut] + other + marker[cut:]
            for marker, other in zip(specials, parts, strict=False)
            for cut in (1, 2)
        ]
        ways = [backend.tokenize, *([backend.tokenize_after] if isinstance(backend, TokenizesAfter) else [])]
        for text in texts:
            for tokenize in ways:
                emitted = forbidden.intersection(tokenize(text))
                assert not emitted, f"{text!r} gave the special tokens {emitted}"

    def test_a_marker_in_a_text_is_still_its_text(self, backend: Backend) -> None:
        """What looked like a special token reads the same afterwards."""
        if not self.round_trips:
            pytest.skip("this vocabulary does not keep texts as they are")
        for marker in list(backend.info.special_tokens)[:50]:
            for text in (marker, f"before {marker} after", f"{marker}{marker}x"):
                self._assert_text(backend, text)

    def test_a_text_comes_back(self, backend: Backend) -> None:
        """The bytes of its tokens joined are the text; a vocabulary may put one space before it."""
        if not self.round_trips:
            pytest.skip("this vocabulary does not keep texts as they are")
        for text in (SAMPLE, *self.odd_texts):
            self._assert_text(backend, text)

    @staticmethod
    def _assert_text(backend: Backend, text: str) -> None:
        joined = b"".join(backend.token_bytes(token) for token in backend.tokenize(text)).decode()
        assert joined in (text, " " + text), f"{text!r} came back as {joined!r}"

    def test_any_text_has_ids(self, backend: Backend) -> None:
        """NUL characters, lone surrogates, nothing and a great deal are no reason to fail."""
        assert backend.tokenize("") == []
        for text in ("\0", "a\0b\0", "\ud800", "x\udfffy", "\ufeff", "\U0010ffff", "word " * 20_000):
            for token in backend.tokenize(text)[:100]:
                assert isinstance(backend.token_bytes(token), bytes)

    def test_two_surrogates_are_their_character(self, backend: Backend) -> None:
        """As JSON writes an emoji."""
        assert backend.tokenize("\ud83d\ude00") == backend.tokenize("😀")

    def test_a_special_token_adds_its_marker_or_nothing(self, backend: Backend) -> None:
        """A control token adds b"", a user-defined one the marker that it is; BOS adds nothing."""
        for marker, token in backend.info.special_tokens.items():
            assert backend.token_bytes(token) in (b"", marker.encode()), marker
        if backend.info.bos_id is not None:
            assert backend.token_bytes(backend.info.bos_id) == b""

    def test_a_token_that_does_not_exist(self, backend: Backend) -> None:
        """ValueError below and above the vocabulary."""
        for wrong in (-1, backend.info.vocabulary_size, 1 << 31):
            with pytest.raises(ValueError):
                backend.token_bytes(wrong)
