"""Markers of a ``tokenizer.json`` that swallow white space: the ids are those of the tokenizers library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local_llms.backends.base import BackendInfo
from local_llms.backends.transformers.tokenizer_json import JsonVocabulary
from local_llms.catalog import Template
from local_llms.prompts import encode, render, text_of
from local_llms.testing.scripted import ScriptedBackend
from local_llms.types import Message

MARKERS = {"<|user|>": (False, True), "<|mask|>": (True, False), "<|end|>": (True, True), "<|plain|>": (False, False)}
"""Marker → whether it takes the white space in front of it, and behind it."""


class Tokenizer:
    """A vocabulary as a loaded model shows it."""

    def __init__(self, vocabulary: JsonVocabulary) -> None:
        facts = {name: getattr(vocabulary, name) for name in ("special_tokens", "swallows_before", "swallows_after")}
        known = ScriptedBackend().info
        self.info = BackendInfo(
            **{name: getattr(known, name) for name in BackendInfo.__dataclass_fields__ if name not in facts}
            | {"bos_id": None, "adds_bos": False}
            | facts
        )
        self.tokenize = vocabulary.tokenize
        self.token_bytes = vocabulary.token_bytes


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    """The tokenizer of neox-stories with these markers."""
    spec = json.loads((data / "models" / "neox-stories" / "tokenizer.json").read_text("utf-8"))
    first = 1 + max(entry["id"] for entry in spec["added_tokens"] + [{"id": max(spec["model"]["vocab"].values())}])
    for place, (text, (before, behind)) in enumerate(MARKERS.items()):
        strips = {"lstrip": before, "rstrip": behind, "single_word": False, "normalized": False, "special": True}
        spec["added_tokens"].append({"id": first + place, "content": text, **strips})
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}<|user|>\n{{ m.content }}<|end|>\n{% endfor %}<|plain|>\n",
        "{{ messages[0].content }} <|mask|> {{ messages[0].content }}\n<|plain|>",
        "<|end|> \n <|user|>\n\n<|mask|>{{ messages[0].content }}\n",
        "<|plain|> {{ messages[0].content }} <|plain|>",
    ],
)
@pytest.mark.parametrize("content", ["Once upon a time", "  two spaces, a line\n", "\n"])
def test_ids_are_those_of_the_library(folder: Path, source: str, content: str) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompt = render(Template(name="t", source=source), [Message("user", content)])
    vocabulary = JsonVocabulary.of(folder)
    ids = library.encode(text_of(prompt), add_special_tokens=False).ids
    assert encode(prompt, Tokenizer(vocabulary)) == ids
