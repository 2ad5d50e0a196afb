"""Vocabularies of GGML files: markers are no text, bytes come back, and what converters lost is restored."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_llms.backends.ctransformers.byte_pairs import LOST, ByteVocabulary
from local_llms.backends.ctransformers.merging import merge
from local_llms.backends.ctransformers.pieces import PieceVocabulary
from local_llms.backends.ctransformers.splitting import words
from tests.ggml_files import BYTES, UNKNOWN_TEXT

MERGED = [b" t", b"he", b" the", b"re", b"in", b" in", b"\xc3\xa9", b"##", b"###", b"nd", b"End", b" End"]
MARKERS = [b"<|endoftext|>", b"<|padding|>"]
DOLLY = [b"### End", b"### Instruction:", b"### Response:\n"]
RUNS = [b" " * length for length in (24, 4, 3, 2)]

NEOX = [*MARKERS, *(bytes([byte]) for byte in BYTES), *MERGED, *RUNS, *DOLLY, b"", b""]
"""As GPT-NeoX and Dolly 2 are laid out: runs of blanks and Dolly's markers at the end, then ids for nothing."""

ALPHABET = st.one_of(
    st.characters(), st.sampled_from([*" \n\t<|>#/s", "the", "### End", "<|endoftext|>", "</s>", "  "])
)
ANY_TEXT = st.lists(ALPHABET, max_size=40).map("".join)


@pytest.fixture(scope="module")
def dolly() -> ByteVocabulary:
    return ByteVocabulary(NEOX)


def pieces(added: bool = False) -> PieceVocabulary:
    tokens = [UNKNOWN_TEXT, b"", b"", *(bytes([byte]) for byte in range(256))]
    texts = [" t", "he", " the", " ", *map(chr, range(33, 127)), "é", "</", "s>", "</s>"]
    tokens += [text.encode() for text in texts]
    scores = [0.0] * 259 + [-float(number) for number in range(len(texts))]
    if added:
        tokens += [b"<pad>", b"<|prompter|>"]
        scores += [-1000.0, -1000.0]
    return PieceVocabulary(tokens, scores)


def text_of(vocabulary: ByteVocabulary | PieceVocabulary, ids: list[int]) -> str:
    return b"".join(map(vocabulary.token_bytes, ids)).decode()


def test_markers_are_what_merging_cannot_make(dolly: ByteVocabulary) -> None:
    assert set(dolly.special_tokens) == {text.decode() for text in (*MARKERS, *DOLLY)}
    assert all(dolly.token_bytes(number) == b"" for number in dolly.special_tokens.values())
    assert dolly.eos_text == "<|endoftext|>"
    assert dolly.end_ids == {0}


@given(ANY_TEXT)
def test_any_text_comes_back_without_a_marker(text: str) -> None:
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    for vocabulary, space in ((ByteVocabulary(NEOX), ""), (pieces(), " "), (pieces(added=True), " ")):
        ids = vocabulary.tokenize(text)
        assert not set(vocabulary.special_tokens.values()) & set(ids)
        assert text_of(vocabulary, ids) == (space + whole if text else "")


def test_runs_of_blanks_are_found_before_words_are_split(dolly: ByteVocabulary) -> None:
    run = {len(text): NEOX.index(text) for text in RUNS}
    the, t = NEOX.index(b" the"), NEOX.index(b" t")
    assert dolly.tokenize("   the") == [run[3], *dolly.tokenize("the")]
    assert dolly.tokenize(" the") == [the]
    assert dolly.tokenize(" t" + " " * 29 + "t") == [t, run[24], run[4], *dolly.tokenize(" t")]


def test_single_bytes_are_restored_and_parts_of_characters_are_not() -> None:
    exact = [b"<|endoftext|>", *(bytes([byte]) for byte in BYTES), b"\xc3\xa9", b"\xf0\x9f", b"\xf0\x9f\x98"]
    lossy = [text.decode("utf-8", "replace").encode() for text in exact]
    assert lossy.count(LOST) > 100
    vocabulary = ByteVocabulary(lossy)
    assert [vocabulary.token_bytes(number) for number in range(1, 257)] == exact[1:257]
    assert LOST in vocabulary.token_bytes(258)
    ids = vocabulary.tokenize("é😀")
    assert text_of(vocabulary, ids) == "é😀"
    assert ids[0] == 257
    assert len(ids) == 5
    assert len(ByteVocabulary(exact).tokenize("é😀")) == 3


def test_a_vocabulary_that_has_the_replacement_character(dolly: ByteVocabulary) -> None:
    """As GPT-2's does: once, and it is a token like others."""
    vocabulary = ByteVocabulary([*(bytes([byte]) for byte in BYTES), b"\xef\xbf", LOST])
    assert vocabulary.tokenize("\ufffd") == [257]


def test_added_pieces_are_special() -> None:
    vocabulary = pieces(added=True)
    assert {"<pad>", "<|prompter|>"} < set(vocabulary.special_tokens)
    assert text_of(vocabulary, vocabulary.tokenize("a<pad>b")) == " a<pad>b"
    assert set(pieces().special_tokens) == {"<unk>", "<s>", "</s>"}


def test_an_ordinary_piece_may_have_the_score_of_added_ones() -> None:
    """LLaMA has one in its middle."""
    tokens = [UNKNOWN_TEXT, b"", b"", *(bytes([byte]) for byte in range(256)), b"ab", b" "]
    vocabulary = PieceVocabulary(tokens, [0.0] * 259 + [-1000.0, -1001.0])
    assert set(vocabulary.special_tokens) == {"<unk>", "<s>", "</s>"}
    assert vocabulary.tokenize("ab") == [260, 259]


def test_a_piece_that_crosses_words() -> None:
    """Then a text is merged as a whole, since a word's beginning is no border."""
    tokens = [UNKNOWN_TEXT, b"", b"", *(bytes([byte]) for byte in range(256)), b"a b", b"a ", b" "]
    vocabulary = PieceVocabulary(tokens, [0.0] * 259 + [-1.0, -2.0, -3.0])
    assert vocabulary.tokenize("a b") == [261, 259]


def test_the_best_pair_is_merged_first_and_of_equals_the_leftmost() -> None:
    ranks = {b"ab": 2.0, b"bc": 1.0, b"aa": 0.0, b"aab": 5.0}
    assert merge([b"a", b"b", b"c"], ranks.get) == [b"a", b"bc"]
    assert merge([b"a"] * 3, ranks.get) == [b"aa", b"a"]
    assert merge([b"a", b"a", b"b"], ranks.get) == [b"aab"]
    assert merge([], ranks.get) == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("I'll don't 'tis", ["I", "'ll", " don", "'t", " '", "tis"]),
        ("a  b   ", ["a", " ", " b", "   "]),
        ("x1 22 ²½", ["x", "1", " 22", " ²½"]),
        ("\n\n a\t", ["\n\n", " a", "\t"]),
        ("日本語!?", ["日本語", "!?"]),
        ("\x1c\x85\u3000z", ["\x1c", "\x85", "\u3000", "z"]),
    ],
)
def test_words(text: str, parts: list[str]) -> None:
    assert list(words(text)) == parts


def test_long_texts_take_little_time(dolly: ByteVocabulary) -> None:
    started = time.thread_time()  # of the processor: other processes do not count
    for vocabulary in (dolly, pieces()):
        for text in ("the " * 25_000, "a" * 100_000, "😀" * 20_000, " " * 100_000):
            assert vocabulary.tokenize(text)
    assert time.thread_time() - started < 20
