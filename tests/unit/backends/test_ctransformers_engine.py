"""A GGML file behind the one door: the engine serves it like any other model."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_llms import load_model
from local_llms.backends.ctransformers import process
from local_llms.errors import DeadlineExceeded, DecodeError, RequestCancelled
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


def test_a_process_that_is_killed_in_the_middle_costs_one_request(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = model.generate(PROMPTS[0], **GREEDY).token_ids
    child, killed = child_of(model), threading.Event()
    evaluate, calls = child.evaluate, itertools.count()

    def dying(*arguments, **options):
        if next(calls) == 5:
            os.kill(child.pid, signal.SIGSEGV)
            killed.set()
        return evaluate(*arguments, **options)

    monkeypatch.setattr(child, "evaluate", dying)
    stream = model.stream(PROMPTS[0], temperature=0.0, max_tokens=100)
    assert killed.wait(20)
    waiting = model.stream(PROMPTS[0], **GREEDY)
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


def test_cancelling_leaves_the_model_in_order(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = model.generate(PROMPTS[2], **GREEDY).token_ids
    child, go_on = child_of(model), threading.Event()
    evaluate, calls = child.evaluate, itertools.count()

    def waiting(*arguments, **options):
        if next(calls) == 5:
            go_on.wait(20)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(child, "evaluate", waiting)
    stream = model.stream(PROMPTS[0], temperature=0.0, max_tokens=100)
    next(iter(stream))
    stream.cancel()
    go_on.set()
    with pytest.raises(RequestCancelled):
        stream.result()
    assert model.generate(PROMPTS[2], **GREEDY).token_ids == expected


@pytest.mark.parametrize("way", ["cancel", "timeout"])
def test_a_process_that_hangs_is_ended(model: LoadedModel, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """It costs the request that gives it up, and nobody waits for ever."""
    monkeypatch.setattr(process, "PATIENCE", 0.3)
    expected = model.generate(PROMPTS[2], **GREEDY).token_ids
    child = child_of(model)
    evaluate, starts = child.evaluate, child.starts
    hung: list[int] = []
    over = threading.Event()

    def hanging(*arguments, **options):
        if not hung and not over.is_set():
            hung.append(child.pid)
            os.kill(child.pid, signal.SIGSTOP)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(child, "evaluate", hanging)
    stream = model.stream(PROMPTS[0], **GREEDY, **({"timeout": 1.0} if way == "timeout" else {}))
    if way == "cancel":
        while not hung:
            time.sleep(0.005)
        waiting = model.stream(PROMPTS[2], **GREEDY)
        stream.cancel()
        assert waiting.result().token_ids == expected
    with pytest.raises(RequestCancelled if way == "cancel" else DeadlineExceeded):
        stream.result()
    over.set()
    assert model.generate(PROMPTS[2], **GREEDY).token_ids == expected
    # On a machine that is very busy the time may be over before anything is computed.
    assert child.starts == starts + len(hung)
    for number in hung:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def test_killed_at_any_moment_it_costs_a_request_and_nothing_else(model: LoadedModel) -> None:
    """Every answer is what it is alone, or an error that says what happened."""
    chance = random.Random(11)
    expected = {prompt: model.generate(prompt, **GREEDY).token_ids for prompt in PROMPTS}
    child = child_of(model)
    over = threading.Event()

    def kill() -> None:
        while not over.wait(chance.uniform(0.0, 0.12)):
            running = child._process
            if running is not None:
                with contextlib.suppress(ProcessLookupError):
                    running.send_signal(chance.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM]))

    killer = threading.Thread(target=kill)
    killer.start()
    failures: list[str] = []
    try:
        # One that dies between two calls of the library costs nothing at all.
        while child.starts < 8 or (not failures and child.starts < 200):
            streams = [(prompt, model.stream(prompt, **GREEDY)) for prompt in PROMPTS]
            for prompt, stream in streams:
                try:
                    assert stream.result().token_ids == expected[prompt]
                except DecodeError as error:
                    failures.append(str(error))
    finally:
        over.set()
        killer.join()
    assert failures
    assert all("died (SIG" in text or "could not be started" in text for text in failures), failures
    with contextlib.suppress(DecodeError):
        model.generate(PROMPTS[0], **GREEDY)  # the last signal may have been on its way
    assert [model.generate(prompt, **GREEDY).token_ids for prompt in PROMPTS] == list(expected.values())


def test_what_the_library_prints_stays_with_the_process(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with load_model(path, template="plain", threads=1, context_length=128) as loaded:
        loaded.generate(PROMPTS[0], **GREEDY)
        os.kill(child_of(loaded).pid, signal.SIGABRT)
    assert capfd.readouterr() == ("", "")


def test_a_text_is_scored(model: LoadedModel) -> None:
    score = model.score("Once the one")
    assert len(score.token_ids) == len(score.token_logprobs)
    assert all(value is not None and value < 0 for value in score.token_logprobs)
