"""Token ids that the original projects give, for whoever has their vocabularies.

These are not in the test data. A test looks for them in its folder ``vocabularies``: ``chatglm-6b/ice_text.model``,
``chatglm2-6b/tokenizer.model``, ``chatglm3-6b/tokenizer.model``, ``glm-4-9b-chat/tokenizer.model``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local_llms.catalog import find_template
from local_llms.prompts import Segment, encode, render
from tests.unit.backends.chatglm.test_vocabularies import Speaking

FILES = {
    "THUDM/chatglm-6b": ("chatglm-6b/ice_text.model", "chatglm"),
    "THUDM/chatglm2-6b": ("chatglm2-6b/tokenizer.model", "chatglm2"),
    "THUDM/chatglm3-6b": ("chatglm3-6b/tokenizer.model", "chatglm3"),
    "THUDM/glm-4-9b-chat": ("glm-4-9b-chat/tokenizer.model", "glm4"),
}
GMASK = 130_001
"""In ChatGLM-6B's config.json."""


def vocabulary_of(path: Path, template: str) -> Any:
    from local_llms.backends.transformers.chatglm import ice_vocabulary, rank_vocabulary, role_vocabulary

    if template == "chatglm":
        return ice_vocabulary.IceVocabulary(path, GMASK)
    if template == "glm4":
        ranks = rank_vocabulary.read_ranks(path)
        specials = {text: len(ranks) + place for place, text in enumerate(rank_vocabulary.SPECIAL_TOKENS)}
        return rank_vocabulary.RankVocabulary(ranks, specials)
    return role_vocabulary.RoleVocabulary(path, roles=template == "chatglm3")


@pytest.mark.parametrize("model", FILES)
def test_ids_are_those_of_the_original(data: Path, model: str) -> None:
    place, template = FILES[model]
    path = data / "vocabularies" / place
    if not path.is_file():
        pytest.skip(f"not tested: the vocabulary of {model} is not at hand ({path})")
    speaking = Speaking(vocabulary_of(path, template))
    lines = (data / "prompts" / "token_goldens.jsonl").read_text("utf-8").splitlines()
    goldens = [golden for golden in map(json.loads, lines) if golden["model"] == model]
    assert goldens
    for golden in goldens:
        messages = golden.get("messages")
        prompt = render(find_template(template)[1], messages) if messages else (Segment(golden["text"], False),)
        assert encode(prompt, speaking) == golden["ids"], golden
