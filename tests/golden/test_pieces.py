"""ChatGLM3 and GLM-4 tokenize the line behind a marker and the text after it each by itself: so does this package.

SentencePiece puts a space in front of everything that it is given, so the pieces show in the ids.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local_llms.backends.base import BackendInfo
from local_llms.catalog import find_template
from local_llms.prompts import encode, render
from local_llms.types import Message

MARKERS = ("[gMASK]", "sop", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")


class Listening:
    """A tokenizer that remembers what it was given: each text, and each marker, is one id."""

    def __init__(self) -> None:
        self.pieces: list[dict[str, str]] = [{"special": marker} for marker in MARKERS]
        self.info = BackendInfo(
            backend="listening",
            architecture="none",
            parameters=0,
            vocabulary_size=1 << 20,
            context_length=1 << 20,
            trained_context_length=1 << 20,
            cache_tokens=1 << 20,
            max_sequences=1,
            batch_tokens=64,
            bos_id=None,
            end_ids=frozenset(),
            adds_bos=False,
            special_tokens={marker: number for number, marker in enumerate(MARKERS)},
        )

    def tokenize(self, text: str) -> list[int]:
        self.pieces.append({"text": text})
        return [len(self.pieces) - 1]


def pieces_of(template: str, messages: list[Message]) -> list[dict[str, str]]:
    listening = Listening()
    ids = encode(render(find_template(template)[1], messages), listening)
    return [listening.pieces[token] for token in ids]


def test_every_golden_of_chatglm3(data: Path) -> None:
    lines = (data / "prompts" / "goldens.jsonl").read_text("utf-8").splitlines()
    goldens = [golden for golden in map(json.loads, lines) if golden["template"] == "chatglm3"]
    assert len(goldens) == 8
    for golden in goldens:
        listening = Listening()
        prompt = render(
            find_template("chatglm3")[1],
            golden["messages"],
            tools=golden.get("tools"),
            add_generation_prompt=golden["add_generation_prompt"],
        )
        found = [listening.pieces[token] for token in encode(prompt, listening)]
        assert found == golden["segments"], golden["case"]


@pytest.mark.parametrize("template", ["chatglm3", "glm4"])
def test_the_line_behind_a_marker_stands_alone(template: str) -> None:
    start = "sop" if template == "chatglm3" else "<sop>"
    found = pieces_of(template, [Message("user", "\nsecond line\n")])
    expected = [{"special": "[gMASK]"}, {"special": start}, {"special": "<|user|>"}, {"text": "\n"}]
    assert found == [*expected, {"text": "\nsecond line\n"}, {"special": "<|assistant|>"}]


def test_typed_markers_and_lines_divide_nothing() -> None:
    found = pieces_of("chatglm3", [Message("user", "<|user|>\na<|user|>\nb")])
    assert {"text": "<|user|>\na<|user|>\nb"} in found
