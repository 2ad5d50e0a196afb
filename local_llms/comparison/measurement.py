"""What is measured of one model, in this process."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from local_llms.about import describe
from local_llms.comparison.memory import peak_memory
from local_llms.comparison.prediction import Passages, predict
from local_llms.errors import OptionError
from local_llms.models import LoadedModel, load_model

WINDOW = 2000
"""Characters of a passage, where every model's context holds them."""
RUNS = 3
PROMPT = 200
"""Characters of the text that an answer goes on from, when speed is measured."""


@dataclass(frozen=True, slots=True)
class Task:
    """What to do with a model: the text to predict, in passages of ``window`` characters, ``stride`` apart.

    ``tokens``: tokens of an answer whose speed is measured. ``loading``: fields of ``LoadingOptions``.
    """

    model: str
    text: str
    window: int
    stride: int
    tokens: int
    loading: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measurement:
    """``size``: bytes of the weights as they are computed with; where the backend does not tell, of the model's files.
    ``memory``: the most bytes that the process had in memory, all together.

    ``speed``: tokens a second of one stream, None where the model ends at once. ``perplexity`` is per token, so it
    compares models of one vocabulary only; ``bits_per_byte`` compares all.
    """

    model: str
    quantization: str
    size: int
    memory: int
    speed: float | None
    perplexity: float
    bits_per_byte: float
    scored_tokens: int


def measure(task: Task) -> Measurement:
    """Load the model and measure it. Raises what loading and scoring raise, and OptionError for an embedding model."""
    passages = Passages(task.text, task.window, task.stride)
    with load_model(task.model, **task.loading) as model:
        info = model.info
        if not info.can_generate:
            raise OptionError(f"{info.name} makes embeddings and predicts no text. Compare models that generate.")
        found = predict(model.score, model.tokenize, passages)
        speed = _speed(model, task)
        return Measurement(
            model=task.model,
            quantization=info.quantization,
            size=info.weight_bytes or info.size,
            memory=peak_memory(),
            speed=speed,
            perplexity=found.perplexity,
            bits_per_byte=found.bits_per_byte,
            scored_tokens=found.tokens,
        )


def default_text() -> str:
    """A text that every CPython carries: the manual's topics, in the order of their names."""
    topics: Mapping[str, str] = import_module("pydoc_data.topics").topics
    return "\n".join(topics[name] for name in sorted(topics))


def default_window(models: Sequence[str], loading: Mapping[str, Any]) -> int:
    """Characters of a passage that all of the models can hold: a token is at least a character, nearly always."""
    asked: int | None = loading.get("context_length")
    lengths = [describe(model, **loading).trained_context_length for model in models]
    return min([WINDOW, *filter(None, [asked, *lengths])])


def read_text(path: Path) -> str:
    """A text file. Raises OptionError where it cannot be read."""
    try:
        return path.expanduser().read_text("utf-8", errors="replace")
    except OSError as error:
        raise OptionError(f"The text {path} cannot be read: {error.strerror}. Give a text file.") from error


def _speed(model: LoadedModel, task: Task) -> float | None:
    """Median over answers that go on from different places of the text."""
    speeds = []
    for run in range(RUNS):
        start = run * task.window % max(1, len(task.text) - PROMPT)
        prompt = task.text[start : start + PROMPT]
        answer = model.generate(prompt, template="plain", temperature=0.0, max_tokens=task.tokens)
        if answer.usage.completion_tokens > 1:
            speeds.append(answer.timings.tokens_per_second)
    return statistics.median(speeds) if speeds else None
