"""A GGML file behind the one door: the engine serves it like any other model."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_llms import load_model
from local_llms.errors import DecodeError, RequestCancelled
from local_llms.models import LoadedModel
from tests import ggml_files

pytest.importorskip("ctransformers", reason="the library is absent: pip install local-llms[ctransformers]")

PROMPTS = ["Once the", "Once on the", "the", "Once the one"]
GREEDY = {"temperature": 0.0, "max_tokens": 24}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ggml_files.write_tiny_llama(tmp_path_factory.mktemp("ggml") / "tiny.bin")


@pytest.fixture
def model(path: Path) -> Iterator[LoadedModel]:
    with load_model(path, template="plain", threads=1, context_length=128) as loaded:
        yield loaded


def child_of(model: LoadedModel) -> Any:
    with model._use() as engine:
        return engine.backend._child  # type: ignore[attr-defined]


def test_why_it_is_this_backend(model: LoadedModel) -> None:
    assert model.info.backend == "ctransformers"
    assert "begins like a GGML file (ggjt v3)" in model.info.backend_reason


def test_many_at_once_are_what_each_is_alone(model: LoadedModel) -> None:
    alone = [model.generate(prompt, **GREEDY).token_ids for prompt in PROMPTS]
    assert [answer.token_ids for answer in model.generate_many(PROMPTS * 2, **GREEDY)] == alone * 2


def test_seeds_and_usage(model: LoadedModel) -> None:
    options = {"temperature": 1.0, "seed": 4, "max_tokens": 12}
    first, second = (model.generate(PROMPTS[0], **options) for _ in range(2))
    assert first.token_ids == second.token_ids
    assert first.usage.prompt_tokens == len(model.tokenize(PROMPTS[0])) + 1


def test_a_process_that_is_killed_between_two_requests(model: LoadedModel) -> None:
    expected = model.generate(PROMPTS[0], **GREEDY).token_ids
    child = child_of(model)
    os.kill(child.pid, signal.SIGKILL)
    while child.alive:
        time.sleep(0.005)
    assert model.generate(PROMPTS[0], **GREEDY).token_ids == expected


def test_a_process_that_is_killed_in_the_middle_costs_one_request(model: LoadedModel) -> None:
    expected = model.generate(PROMPTS[0], **GREEDY).token_ids
    stream = model.stream(PROMPTS[0], temperature=0.0, max_tokens=100)
    waiting = model.stream(PROMPTS[0], **GREEDY)
    events = iter(stream)
    assert next(events).index == 0
    os.kill(child_of(model).pid, signal.SIGSEGV)
    with pytest.raises(DecodeError, match=r"died \(SIGSEGV\).*Only this request is lost"):
        stream.result()
    assert waiting.result().token_ids == expected


def test_a_request_that_always_crashes_is_the_only_one_that_fails(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = model.generate(PROMPTS[1], **GREEDY).token_ids
    child = child_of(model)
    evaluate = child.evaluate
    bad = model.tokenize("~")[-1]

    def crashing(tokens, position, **options):
        if bad in tokens:
            tokens = [1 << 30]
        return evaluate(tokens, position, **options)

    monkeypatch.setattr(child, "evaluate", crashing)
    bad_stream = model.stream("the ~", **GREEDY)
    good = model.stream(PROMPTS[1], **GREEDY)
    with pytest.raises(DecodeError, match="Only this request is lost"):
        bad_stream.result()
    assert good.result().token_ids == expected


def test_cancelling_leaves_the_model_in_order(model: LoadedModel) -> None:
    expected = model.generate(PROMPTS[2], **GREEDY).token_ids
    stream = model.stream(PROMPTS[0], temperature=0.0, max_tokens=100)
    next(iter(stream))
    stream.cancel()
    with pytest.raises(RequestCancelled):
        stream.result()
    assert model.generate(PROMPTS[2], **GREEDY).token_ids == expected


def test_a_text_is_scored(model: LoadedModel) -> None:
    score = model.score("Once the one")
    assert len(score.token_ids) == len(score.token_logprobs)
    assert all(value is not None and value < 0 for value in score.token_logprobs)
