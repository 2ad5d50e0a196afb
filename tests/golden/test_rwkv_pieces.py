"""ChatRWKV encodes an introduction and each turn apart. With the World vocabulary the ids are those of the whole text.

No word of it goes on behind a line break with anything but white space, so none reaches from one piece into the next.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from local_llms.backends.rwkv.greedy import GreedyVocabulary, world_file, world_vocabulary
from local_llms.catalog import find_template
from local_llms.prompts import encode, render
from tests.golden.test_all_families import Characters


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> GreedyVocabulary:
    if importlib.util.find_spec("rwkv") is None:
        pytest.skip("the rwkv package, which ships the vocabulary, is not installed")
    return world_vocabulary(world_file(tmp_path_factory.mktemp("none")))


def test_pieces_make_no_difference(world: GreedyVocabulary, data: Path) -> None:
    lines = (data / "prompts" / "goldens.jsonl").read_text("utf-8").splitlines()
    goldens = [golden for golden in map(json.loads, lines) if golden["template"] == "rwkv-world"]
    in_pieces = [golden for golden in goldens if "segments" in golden]
    assert len(in_pieces) == 3
    tokenizer = Characters(frozenset())
    tokenizer.tokenize = world.tokenize  # type: ignore[method-assign]
    for golden in in_pieces:
        apart = [token for segment in golden["segments"] for token in world.tokenize(segment["text"])]
        assert world.tokenize(golden["expected"]) == apart
        assert encode(render(find_template("rwkv-world")[1], golden["messages"]), tokenizer) == apart


def test_no_word_goes_on_behind_a_line_break(world: GreedyVocabulary) -> None:
    words = [world.token_bytes(token) for token in range(world.size)]
    reaching = [word for word in words if b"\n" in word and word.rpartition(b"\n")[2].strip(b" \t\r\n")]
    assert reaching == []
