"""``local-llms bench``: how fast a model is on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from local_llms.cli.console import Given, err, out, pairs
from local_llms.errors import OptionError

if TYPE_CHECKING:
    from local_llms.models import LoadedModel
    from local_llms.types import Completion

WORDS = ("river", "stone", "winter", "letter", "garden", "window", "market", "bridge", "harbour", "candle", "forest")
QUESTION = "Tell a story about {}."
LONG_PREFIX = 1500
"""Tokens of the prefix whose reuse is measured, as far as the context holds them."""


def bench(
    loading: Given,
    model: Annotated[str | None, typer.Argument(help="A name of the catalog, or a file.")] = None,
    parallel: Annotated[int, typer.Option("--parallel", "-p", min=1, max=64, help="Streams at once.")] = 8,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of each answer.")] = 64,
    repeat: Annotated[int, typer.Option(min=1, help="Runs; medians are shown.")] = 3,
) -> None:
    """Measure time to the first token, tokens a second for one and several streams, and prefix reuse."""
    from local_llms.models import load_model

    start = time.perf_counter()
    with load_model(model, **{"max_parallel": max(parallel, 16), **loading}) as loaded:
        seconds = time.perf_counter() - start
        if not loaded.info.can_generate:
            raise OptionError(f"{loaded.info.name} makes embeddings and generates no text; bench needs one that does.")
        runner = Runner(loaded, tokens)
        with err().status("Measuring …"):
            runner.answers(1)
            singles = [runner.answers(1) for _ in range(repeat)]
            many = [runner.answers(parallel) for _ in range(repeat)]
            cold, warm = zip(*(runner.prefix() for _ in range(repeat)), strict=True)
    out().print(
        pairs(
            [
                ("model", f"{loaded.info.name} ({loaded.info.quantization or 'unknown type'})"),
                ("loaded in", f"{seconds:.2f} s"),
                ("first token", f"{statistics.median(run.first_token for run in singles) * 1000:.0f} ms"),
                ("1 stream", f"{statistics.median(run.speed for run in singles):.1f} tokens/s"),
                (f"{parallel} streams", f"{statistics.median(run.speed for run in many):.1f} tokens/s together"),
                ("long prefix", f"{cold[0].usage.prompt_tokens} tokens"),
                ("first token, new prefix", f"{_first_token(cold) * 1000:.0f} ms"),
                ("first token, seen prefix", f"{_first_token(warm) * 1000:.0f} ms"),
                ("medians of", f"{repeat} runs"),
            ]
        )
    )


class Run:
    """Answers that were computed together: seconds to a first token, and tokens a second of all of them."""

    def __init__(self, completions: list[Completion], seconds: float) -> None:
        self.first_token = statistics.median(item.timings.first_token for item in completions)
        self.speed = sum(item.usage.completion_tokens for item in completions) / seconds


class Runner:
    """Asks questions that share no beginning with an earlier one, so that only what is meant to be reused is."""

    def __init__(self, model: LoadedModel, tokens: int) -> None:
        self._model = model
        self._options = {"max_tokens": tokens, "temperature": 0.0}
        self._names = _names()

    def answers(self, count: int) -> Run:
        """The answers to ``count`` new questions, asked together."""
        prompts = [f"{next(self._names)}: {QUESTION.format(next(self._names))}" for _ in range(count)]
        start = time.perf_counter()
        completions = self._model.generate_many(prompts, **self._options)
        return Run(completions, time.perf_counter() - start)

    def prefix(self) -> tuple[Completion, Completion]:
        """One question after a long new text, and another one after the same text."""
        info = self._model.info
        length = min(LONG_PREFIX, info.context_length // 2)
        text = f"{next(self._names)} "
        while self._model.count_tokens(text) < length:
            text += " ".join(next(self._names) for _ in range(50)) + ". "
        first, second = (
            self._model.generate(text + QUESTION.format(name), temperature=0.0, max_tokens=2)
            for name in (next(self._names), next(self._names))
        )
        return first, second


def _first_token(completions: tuple[Completion, ...]) -> float:
    return statistics.median(item.timings.first_token for item in completions)


def _names() -> Iterator[str]:
    """Word pairs, none twice for a long time."""
    number = 0
    while True:
        number += 1
        yield f"{WORDS[number % len(WORDS)]} {number}"
