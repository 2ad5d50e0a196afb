"""Every line of the goldens, equal to the byte, and its markers where the line tells which ones are tokens.

Of the segments, markers and the text between them are compared. Two things cannot be shown without the original's
tokenizer: that it encodes neighbouring texts one by one, and what ids text has.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from local_llms.backends.base import BackendInfo
from local_llms.catalog import families, find_template
from local_llms.prompts import Prompt, encode, render, render_prompt

FOLDER = Path(os.environ.get("LOCAL_LLMS_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
FILE = FOLDER / "prompts" / "goldens.jsonl"
GOLDENS = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()] if FILE.is_file() else []
COUNT = 172
"""Lines of the file."""
MARKER = re.compile(r"(?<!<)<\|?/?\w+\|?>|\[gMASK\]")
"""Not <<SYS>>, which is ordinary text."""

every_golden = pytest.mark.parametrize(
    "golden",
    GOLDENS or [pytest.param({}, marks=pytest.mark.skip(f"the test data is absent: {FILE}"))],
    ids=lambda golden: f"{golden['template']}-{golden['case']}" if golden else "absent",
)
needs_goldens = pytest.mark.skipif(not GOLDENS, reason=f"the test data is absent: {FILE}")

Piece = tuple[str, str]
"""("special", a marker that is a token) or ("text", what stands between two of them)."""


def options_of(golden: dict[str, Any]) -> dict[str, Any]:
    names = ("input", "tools", "add_generation_prompt", "continue_final_message")
    return {name: golden[name] for name in names if name in golden}


@every_golden
def test_text_is_equal_to_the_byte(golden: dict[str, Any]) -> None:
    written = render_prompt(golden["template"], golden["messages"], **options_of(golden))
    assert written.encode() == golden["expected"].encode()


@every_golden
def test_markers_are_tokens_and_typed_ones_are_text(golden: dict[str, Any]) -> None:
    template = find_template(golden["template"])[1]
    prompt = render(template, golden["messages"], **options_of(golden))
    markers = markers_of(golden["template"])
    if "segments" in golden:
        expected = [next(iter(segment.items())) for segment in golden["segments"]]
        assert pieces_of(prompt, markers) == list(merged(expected))
    # Whatever the messages say, the tokens are those of the same conversation that says nothing of note.
    said = [{**message, "content": "x"} for message in golden["messages"]]
    options = {**options_of(golden), **({"input": "x"} if golden.get("input") else {})}
    if all(message["content"] for message in golden["messages"]):
        assert tokens(prompt, markers) == tokens(render(template, said, **options), markers)


@needs_goldens
def test_every_line_is_there_and_every_name_is_known() -> None:
    assert len(GOLDENS) == COUNT
    known = {template.name for family in families().values() for template in family.templates}
    assert {golden["template"] for golden in GOLDENS} <= known


@needs_goldens
def test_segments_tell_of_markers() -> None:
    """So that the comparison of segments compares something."""
    with_segments = [golden for golden in GOLDENS if "segments" in golden]
    assert len(with_segments) == 17
    special = sum("special" in segment for golden in with_segments for segment in golden["segments"])
    assert special > 50


def markers_of(name: str) -> frozenset[str]:
    """What looks like a marker in a template's goldens, and those that the template declares or segments name."""
    template = find_template(name)[1]
    markers = {template.eos_token, *template.stop_tokens}
    for golden in GOLDENS:
        if golden["template"] == name:
            markers.update(MARKER.findall(golden["expected"]))
            markers.update(segment["special"] for segment in golden.get("segments", ()) if "special" in segment)
    return frozenset(markers - {""})


class Characters:
    """One id for each character, behind those of the markers."""

    def __init__(self, markers: frozenset[str]) -> None:
        self.markers = sorted(markers)
        self.info = BackendInfo(
            backend="characters",
            architecture="characters",
            parameters=0,
            vocabulary_size=0x110000 + len(markers),
            context_length=1 << 20,
            trained_context_length=1 << 20,
            cache_tokens=1 << 20,
            max_sequences=1,
            batch_tokens=64,
            bos_id=None,
            end_ids=frozenset(),
            adds_bos=False,
            special_tokens={marker: number for number, marker in enumerate(self.markers)},
        )

    def tokenize(self, text: str) -> list[int]:
        return [ord(character) + len(self.markers) for character in text]

    def piece(self, token: int) -> Piece:
        count = len(self.markers)
        return ("special", self.markers[token]) if token < count else ("text", chr(token - count))


def pieces_of(prompt: Prompt, markers: frozenset[str]) -> list[Piece]:
    tokenizer = Characters(markers)
    return list(merged(tokenizer.piece(token) for token in encode(prompt, tokenizer)))


def merged(pieces: Iterator[Piece] | list[Piece]) -> Iterator[Piece]:
    """The pieces with neighbouring texts as one."""
    for kind, group in groupby(pieces, key=lambda piece: piece[0]):
        if kind == "text":
            yield kind, "".join(text for _, text in group)
        else:
            yield from group


def tokens(prompt: Prompt, markers: frozenset[str]) -> list[str]:
    return [text for kind, text in pieces_of(prompt, markers) if kind == "special"]
