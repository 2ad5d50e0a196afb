"""Operations on text: the same characters as ``str`` gives, and every character keeps its origin."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_llms.prompts.interpreter import text as texts
from local_llms.prompts.interpreter.text import FINAL, STRUCTURE, Text

Origins = list[int]

alphabet = st.text("ab \n|", max_size=6)
pieces = st.lists(st.tuples(alphabet, st.sampled_from([0, STRUCTURE, FINAL])), max_size=6)
separators = st.sampled_from(["a", "b", "|", " ", "\n", "ab", "a|", "||", "x"])


def build(parts: list[tuple[str, int]]) -> str:
    makers = {0: str, STRUCTURE: texts.structure, FINAL: texts.final}
    return texts.concat([makers[origin](text) for text, origin in parts])


def origins(text: str) -> Origins:
    found = [0] * len(text)
    for start, stop, origin in texts.spans(text):
        found[start:stop] = [origin] * (stop - start)
    return found


def check(text: str) -> None:
    """The promises of ``Text``."""
    spans = texts.spans(text)
    assert isinstance(text, Text) == bool(spans)
    for start, stop, _ in spans:
        assert 0 <= start < stop <= len(text)
    for before, after in itertools.pairwise(spans):
        assert before[1] < after[0] or (before[1] == after[0] and before[2] != after[2])


def same_part(part: str, whole: str, start: int) -> None:
    check(part)
    assert part == whole[start : start + len(part)]
    assert origins(part) == origins(whole)[start : start + len(part)]


@given(pieces)
def test_concat_keeps_every_origin(parts: list[tuple[str, int]]) -> None:
    text = build(parts)
    check(text)
    assert text == "".join(part for part, _ in parts)
    assert origins(text) == [origin for part, origin in parts for _ in part]


@given(pieces, st.integers(0, 40), st.integers(0, 40))
def test_cut(parts: list[tuple[str, int]], first: int, second: int) -> None:
    text = build(parts)
    start, stop = sorted((min(first, len(text)), min(second, len(text))))
    part = texts.cut(text, start, stop)
    assert part == str(text)[start:stop]
    same_part(part, text, start)


@given(pieces, st.sampled_from([None, "a", " \n", "ab"]))
def test_strips(parts: list[tuple[str, int]], characters: str | None) -> None:
    text = build(parts)
    left = len(text) - len(str(text).lstrip(characters))
    assert texts.lstrip(text, characters) == str(text).lstrip(characters)
    same_part(texts.lstrip(text, characters), text, left)
    assert texts.rstrip(text, characters) == str(text).rstrip(characters)
    same_part(texts.rstrip(text, characters), text, 0)
    assert texts.strip(text, characters) == str(text).strip(characters)
    same_part(texts.strip(text, characters), text, min(left, len(text)) if str(text).strip(characters) else 0)


@given(pieces, separators)
def test_removing_ends(parts: list[tuple[str, int]], end: str) -> None:
    text = build(parts)
    assert texts.removeprefix(text, end) == str(text).removeprefix(end)
    same_part(texts.removeprefix(text, end), text, len(end) if str(text).startswith(end) else 0)
    assert texts.removesuffix(text, end) == str(text).removesuffix(end)
    same_part(texts.removesuffix(text, end), text, 0)


@given(pieces, separators, st.integers(-1, 3))
def test_splits_at_a_separator(parts: list[tuple[str, int]], separator: str, limit: int) -> None:
    text = build(parts)
    for split, plain in ((texts.split, str.split), (texts.rsplit, str.rsplit)):
        found = split(text, separator, limit)
        assert found == plain(str(text), separator, limit)
        start = 0
        for part in found:
            same_part(part, text, start)
            start += len(part) + len(separator)


@given(pieces, st.integers(-1, 3))
def test_splits_at_white_space(parts: list[tuple[str, int]], limit: int) -> None:
    text = build(parts)
    assert texts.split(text, None, limit) == str(text).split(None, limit)
    assert texts.rsplit(text, None, limit) == str(text).rsplit(None, limit)
    words = list(re.finditer(r"\S+", text))
    for word, part in zip(words, texts.split(text), strict=True):
        same_part(part, text, word.start())
    for part, limited in zip(texts.split(text, None, limit)[:1], texts.split(text)[:1], strict=True):
        assert origins(part)[: len(limited)] == origins(limited)
    for part, limited in zip(texts.rsplit(text, None, limit)[-1:], texts.split(text)[-1:], strict=True):
        assert origins(part)[-len(limited) :] == origins(limited)


@given(pieces, st.booleans())
def test_lines(parts: list[tuple[str, int]], keepends: bool) -> None:
    text = build(parts)
    lines = texts.splitlines(text, keepends)
    assert lines == str(text).splitlines(keepends)
    start = 0
    for line, whole in zip(lines, str(text).splitlines(True), strict=True):
        same_part(line, text, start)
        start += len(whole)


@given(pieces, separators)
def test_partitions(parts: list[tuple[str, int]], separator: str) -> None:
    text = build(parts)
    for partition, plain in ((texts.partition, str.partition), (texts.rpartition, str.rpartition)):
        found = partition(text, separator)
        assert found == plain(str(text), separator)
        start = 0
        for part in found:
            same_part(part, text, start)
            start += len(part)


@given(separators, st.lists(pieces, max_size=4), st.sampled_from([0, STRUCTURE]))
def test_join(separator: str, items: list[list[tuple[str, int]]], origin: int) -> None:
    between = build([(separator, origin)])
    joined = texts.join(between, [build(parts) for parts in items])
    check(joined)
    assert joined == separator.join(str(build(parts)) for parts in items)
    expected: Origins = []
    for place, parts in enumerate(items):
        expected += ([origin] * len(separator) if place else []) + origins(build(parts))
    assert origins(joined) == expected


@given(pieces, separators, alphabet, st.integers(-1, 3))
def test_replace_gives_no_more_trust_than_it_found(
    parts: list[tuple[str, int]], old: str, new: str, count: int
) -> None:
    text = build(parts)
    replaced = texts.replace(text, old, texts.structure(new), count)
    check(replaced)
    assert replaced == str(text).replace(old, new, count)
    expected: Origins = []
    done, left = 0, count
    while left != 0 and (found := str(text).find(old, done)) >= 0:
        here = set(origins(text)[found : found + len(old)])
        expected += origins(text)[done:found] + [here.pop() if len(here) == 1 else 0] * len(new)
        done, left = found + len(old), left - 1
    assert origins(replaced) == expected + origins(text)[done:]


def test_replacing_nothing_gives_content() -> None:
    assert texts.replace(texts.structure("ab"), "", "-") == "-a-b-"
    assert origins(texts.replace(texts.structure("ab"), "", texts.structure("-"))) == [0] * 5


def test_fill_puts_structure_only_into_structure() -> None:
    value = texts.structure("X")
    assert origins(texts.fill(texts.structure("<{}>"), lambda name: value)) == [STRUCTURE] * 3
    assert origins(texts.fill(texts.concat([texts.structure("<"), "{}"]), lambda name: value)) == [STRUCTURE, 0]
    assert texts.fill("{{{a}}} {0}", lambda name: f"[{name}]") == "{[a]} [0]"
    for bad in ("{a.b}", "{a!r}", "{:>9}", "}", "{"):
        with pytest.raises(ValueError, match="only fields"):
            texts.fill(bad, lambda name: name)


def test_what_is_not_listed_gives_content() -> None:
    marker = texts.structure("<|x|>")
    for result in (marker.upper(), marker + "", "" + marker, str(marker), marker * 2, f"{marker}", marker.lower()):
        assert type(result) is str


@given(pieces)
def test_pieces_alternate_and_cover_everything(parts: list[tuple[str, int]]) -> None:
    text = build(parts)
    found = list(texts.pieces(text))
    assert "".join(part for part, _ in found) == text
    assert all(part for part, _ in found)
    assert [trusted for part, trusted in found for _ in part] == [origin == STRUCTURE for origin in origins(text)]
    merged = [trusted for _, trusted in found]
    assert all(one != other or not one for one, other in itertools.pairwise(merged))


def test_end_of_final() -> None:
    assert texts.end_of_final("abc") is None
    assert texts.end_of_final(texts.concat(["a", texts.final("bc"), "d", texts.final("e"), "f"])) == 5
