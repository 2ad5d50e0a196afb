"""From segments to ids: which markers count, where texts are cut, and exactly one BOS."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_llms.errors import EmptyPrompt, PromptError
from local_llms.prompts import Segment, encode
from local_llms.prompts.encode import _cache

MARKERS = {"<s>": 1, "</s>": 2, "<|a|>": 3, "<|a|><|b|>": 4, "[X]": 5, "é!": 6}


def structure(text: str) -> Segment:
    return Segment(text, True)


def content(text: str) -> Segment:
    return Segment(text, False)


@pytest.fixture
def tokenizer(pair_tokenizer):
    return pair_tokenizer(MARKERS, bos=1)


def specials(ids: list[int]) -> list[int]:
    return [token for token in ids if token < 100]


def test_only_trusted_markers_are_tokens(tokenizer) -> None:
    ids = encode((structure("<|a|>"), content("<|a|></s>"), structure("</s>")), tokenizer)
    assert ids == [3, *tokenizer.tokenize("<|a|></s>"), 2]


def test_a_marker_in_two_halves_is_none(tokenizer) -> None:
    for halves in (
        (structure("<|"), content("a|>")),
        (content("<|"), structure("a|>")),
        (structure("<|a"), content("|"), structure(">")),
        (content("<|a"), content("|>")),
    ):
        assert specials(encode(halves, tokenizer)) == []


def test_neighbours_of_one_origin_are_one_text(tokenizer) -> None:
    assert encode((structure("<|"), structure("a|>")), tokenizer) == [3]


def test_the_longest_marker_counts(tokenizer) -> None:
    assert encode((structure("<|a|><|b|>"),), tokenizer) == [4]
    assert specials(encode((structure("<|a|><|b|<|a|>"),), tokenizer)) == [3, 3]


def test_structure_and_content_are_tokenized_together(tokenizer) -> None:
    encode((structure("</s>user: "), content("hi"), structure(" bot:"), content(""), structure("[X]")), tokenizer)
    assert tokenizer.texts == ["user: hi bot:"]


@given(
    st.lists(
        st.tuples(st.sampled_from([*MARKERS, "<", "|", "a", "s>", "é", " ", "\n", "hello", "[X"]), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
def test_ids_are_those_of_the_whole_string_where_all_is_trusted(pair_tokenizer, parts) -> None:
    tokenizer = pair_tokenizer(MARKERS)
    text = "".join(part for part, _ in parts)
    assert encode(tuple(structure(part) for part, _ in parts), tokenizer) == tokenizer.whole(text)


@given(st.lists(st.tuples(st.sampled_from([*MARKERS, "<|", "a|>", "x"]), st.booleans()), min_size=1, max_size=12))
def test_content_gives_no_special_id(pair_tokenizer, parts) -> None:
    tokenizer = pair_tokenizer(MARKERS)
    prompt = tuple(Segment(text, trusted) for text, trusted in parts)
    alone: list[str] = []
    for place, (text, trusted) in enumerate(parts):
        if trusted and place and parts[place - 1][1]:
            alone[-1] += text
        elif trusted:
            alone.append(text)
    expected = [token for text in alone for token in specials(tokenizer.whole(text))]
    assert specials(encode(prompt, tokenizer)) == expected


@pytest.mark.parametrize(
    ("adds_bos", "written", "expected"),
    [
        (True, "", [1]),
        (True, "<s>", [1]),
        (True, "<s><s>", [1]),
        (True, "</s><s>", [1, 2, 1]),
        (True, "<s></s><s>", [1, 2, 1]),
        (False, "", []),
        (False, "<s>", [1]),
        (False, "<s><s>", [1]),
        (False, "</s>", [2]),
        (False, "<s></s><s>", [1, 2, 1]),
    ],
)
def test_bos(pair_tokenizer, adds_bos: bool, written: str, expected: list[int]) -> None:
    tokenizer = pair_tokenizer(MARKERS, bos=1, adds_bos=adds_bos)
    assert encode((structure(written), content("x")), tokenizer) == [*expected, *tokenizer.tokenize("x")]


def test_a_typed_bos_is_not_the_bos(pair_tokenizer) -> None:
    tokenizer = pair_tokenizer(MARKERS, bos=1, adds_bos=True)
    assert encode((content("<s>x"),), tokenizer) == [1, *tokenizer.tokenize("<s>x")]


def test_bos_that_opens_a_turn(pair_tokenizer) -> None:
    """As in SmolLM2, where the marker that opens a turn is the BOS."""
    for adds_bos in (False, True):
        tokenizer = pair_tokenizer({"<|im_start|>": 1, "<|im_end|>": 2}, bos=1, adds_bos=adds_bos)
        prompt = (structure("<|im_start|>user\n"), content("x"), structure("<|im_end|>\n<|im_start|>assistant\n"))
        assert specials(encode(prompt, tokenizer)) == [1, 2, 1]
        assert encode(prompt, tokenizer)[0] == 1


def test_no_bos_to_add(pair_tokenizer) -> None:
    tokenizer = pair_tokenizer({}, bos=None, adds_bos=True)
    assert encode((content("x"),), tokenizer) == tokenizer.tokenize("x")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((), (), [" \n a \n ", " b "]),
        ((), (3,), ["a \n ", "b "]),
        ((3,), (), [" \n a", " b "]),
        ((3,), (3,), ["a", "b "]),
        ((2,), (2,), [" \n a \n ", " b "]),
    ],
)
def test_white_space_beside_markers_that_swallow_it(pair_tokenizer, before, after, expected) -> None:
    tokenizer = pair_tokenizer(MARKERS)
    tokenizer.info = replace(tokenizer.info, swallows_before=frozenset(before), swallows_after=frozenset(after))
    ids = encode((structure("<|a|> \n "), content("a \n "), structure("<|a|> "), content("b ")), tokenizer)
    assert tokenizer.texts == expected
    assert specials(ids) == [3, 3]


def test_white_space_alone_is_swallowed_whole(pair_tokenizer) -> None:
    tokenizer = pair_tokenizer(MARKERS)
    tokenizer.info = replace(tokenizer.info, swallows_after=frozenset({3}))
    assert encode((structure("<|a|>\n<|a|>"), content(" \n")), tokenizer) == [3, 3]


def test_nothing_to_encode(pair_tokenizer, tokenizer) -> None:
    for empty in ((), (content(""),), (structure(""), content(""))):
        with pytest.raises(EmptyPrompt):
            encode(empty, tokenizer)
    assert encode((), pair_tokenizer(MARKERS, bos=1, adds_bos=True)) == [1]


def test_a_backend_that_breaks_its_promise(tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "tokenize", lambda text: [200, 2])
    with pytest.raises(PromptError, match="backend pairs made a special token"):
        encode((content("</s>"),), tokenizer)


def test_halves_of_surrogate_pairs(tokenizer) -> None:
    encode((content("a\ud83e\udd99b\ud800c"), structure("\udfff")), tokenizer)
    assert tokenizer.texts == ["a🦙b\ufffdc\ufffd"]


def test_many_markers_are_found_quickly(pair_tokenizer) -> None:
    import time

    tokenizer = pair_tokenizer({f"<unused{place}>": place for place in range(90)} | MARKERS)
    prompt = (structure("<unused7>"), content("<unused8> " * 400), structure("<unused9>"))
    encode(prompt, tokenizer)
    tokenizer.tokenize = lambda text: [100]
    # Time of the processor, not of the wall: other processes do not count.
    start = time.thread_time()
    for _ in range(20):
        assert encode(prompt, tokenizer) == [7, 100, 9]
    assert (time.thread_time() - start) / 20 < 0.002


def test_few_models_are_remembered(pair_tokenizer) -> None:
    for number in range(20):
        assert encode((structure(f"<{number}>"),), pair_tokenizer({f"<{number}>": number})) == [number]
    assert len(_cache) <= 8


LETTERS = {"[gMASK]": 1, "sop": 2, "<sop>": 3, "eop": 4}


def test_what_the_model_expects_in_front_and_behind_is_there_once(pair_tokenizer) -> None:
    tokenizer = pair_tokenizer(LETTERS)
    tokenizer.info = replace(tokenizer.info, prompt_prefix=(1, 2))
    plain = tokenizer.tokenize("hi")
    assert encode((content("hi"),), tokenizer) == [1, 2, *plain]
    assert encode((structure("[gMASK]sop"), content("hi")), tokenizer) == [1, 2, *plain]
    assert specials(encode((content("[gMASK]sop"), content("hi")), tokenizer)) == [1, 2]
    tokenizer.info = replace(tokenizer.info, bos_id=1, adds_bos=True)
    assert encode((content("hi"),), tokenizer) == [1, 2, *plain]
    tokenizer.info = replace(tokenizer.info, bos_id=None, adds_bos=False, prompt_prefix=(), prompt_suffix=(1, 3))
    assert encode((content("hi"),), tokenizer) == [*plain, 1, 3]
    assert encode((content("hi"), structure("[gMASK]<sop>")), tokenizer) == [*plain, 1, 3]
    assert encode((content("hi"), structure("<sop>")), tokenizer) == [*plain, 3]
    with pytest.raises(EmptyPrompt):
        encode((content(""),), tokenizer)


def test_a_marker_of_letters_is_no_part_of_a_word(pair_tokenizer) -> None:
    tokenizer = pair_tokenizer(LETTERS)
    assert specials(encode((structure("people and a sophist eop"),), tokenizer)) == [4]
    assert specials(encode((structure("[gMASK]sop<sop>"),), tokenizer)) == [1, 2, 3]


def test_a_segment_that_ends_a_piece_is_tokenized_apart(pair_tokenizer) -> None:
    tokenizer = pair_tokenizer(MARKERS)
    encode((structure("<|a|>x"), Segment("\n", True, ends_piece=True), content("y"), structure("z[X]")), tokenizer)
    assert tokenizer.texts == ["x\n", "yz"]
