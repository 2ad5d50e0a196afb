"""A real model that never learned to think is made to by a prompt that opens a thought: bounds, masks, batches hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llms.models import LoadedModel, load_model

FAMILY = """
name = "thinking-smollm2"
title = "SmolLM2 that thinks"

[[templates]]
name = "thinking-smollm2"
eos_token = "<|im_end|>"
stop_tokens = ["<|im_end|>", "<|endoftext|>"]
source = '''
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{{- '<|im_start|>assistant\\n<think>\\n' }}
'''

[templates.thinking]
"""
QUESTION = "What is the capital of France?"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}


@pytest.fixture(scope="module")
def model(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    home = tmp_path_factory.mktemp("home")
    (home / "config" / "families").mkdir(parents=True)
    (home / "config" / "families" / "thinking.toml").write_text(FAMILY, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_LLMS_HOME", str(home))
        with load_model(smollm2_path, template="thinking-smollm2", context_length=1024, threads=1) as loaded:
            yield loaded


def closing(model: LoadedModel) -> tuple[int, ...]:
    """The tokens that close a thought; this vocabulary has no tag of its own."""
    return tuple(token for text in ("\n", "</think>", "\n\n") for token in model.tokenize(text))


def test_a_thought_is_bounded(model: LoadedModel) -> None:
    answer = model.generate(QUESTION, max_thinking_tokens=4, max_tokens=60, temperature=0)
    assert answer.token_ids[4 : 4 + len(closing(model))] == closing(model)
    assert answer.reasoning
    assert "think>" not in answer.reasoning + answer.text


def test_off_closes_the_thought_at_once(model: LoadedModel) -> None:
    answer = model.generate(QUESTION, thinking=False, max_tokens=30, temperature=0)
    assert answer.token_ids[: len(closing(model))] == closing(model)
    assert answer.reasoning == ""


def test_a_schema_holds_behind_the_thought(model: LoadedModel) -> None:
    pytest.importorskip("llguidance")
    for seed in range(3):
        answer = model.generate(QUESTION, schema=SCHEMA, max_thinking_tokens=10, max_tokens=80, seed=seed)
        assert set(json.loads(answer.text)) == {"city"}
        assert answer.usage.reasoning_tokens


def test_every_answer_of_a_batch_has_thought(model: LoadedModel) -> None:
    """What it says is not compared: batches are put together by who comes when, and round differently."""
    prompts = [QUESTION, "Name a colour.", "Count to three."]
    options = {"max_thinking_tokens": 8, "max_tokens": 30, "temperature": 0, "logprobs": True}
    together = model.generate_many(prompts, **options)
    for answer in together:
        assert len(answer.token_logprobs) == len(answer.token_ids)
        # One may end before its thought does.
        assert answer.usage.reasoning_tokens
        assert answer.text or (answer.reasoning and answer.finish_reason == "stop")
