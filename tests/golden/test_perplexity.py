"""Perplexity as ``local-llms compare`` shows it, against the same worked out from the model's logits."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from local_llms.backends import llama_cpp
from local_llms.backends.base import Chunk, LoadOptions
from local_llms.comparison.measurement import Task, default_text, default_window, measure
from local_llms.comparison.process import measure_apart
from local_llms.hub.gguf import read_header

FILES = ["stories260K-F32", "stories260K-F16", "stories260K-Q8_0"]


def by_hand(path: Path, text: str, window: int, stride: int) -> tuple[float, float, int]:
    """Perplexity, bits per byte and number of tokens, word by word: a token counts where its last byte is counted."""
    with closing(llama_cpp.load(path, LoadOptions(threads=1))) as backend:
        total, tokens, done = 0.0, 0, 0
        while done < len(text):
            end = len(text) if done + window >= len(text) and not done else done + (stride if done else window)
            end = min(end, len(text))
            while 0 < end < len(text) and text[end] != " ":
                end -= 1
            start = max(0, end - window)
            while start > 0 and text[start] != " ":
                start -= 1
            ids = [1, *backend.tokenize(text[start:end])]
            logits = backend.decode([Chunk(0, 0, ids, "all")]).astype(np.float64)
            backend.free(0)
            top = logits.max(axis=1, keepdims=True)
            logprobs = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
            passed = -1  # the space in front of the first word is not of the text
            for place, token in enumerate(ids[1:]):
                passed += len(backend.token_bytes(token))
                if start + passed > done:
                    total += logprobs[place, token]
                    tokens += 1
            done = end
    return math.exp(-total / tokens), -total / math.log(2) / len(text.encode()), tokens


@pytest.mark.parametrize("name", FILES)
def test_perplexity_is_what_the_logits_say(shared_data: Path, name: str) -> None:
    path = shared_data / "models" / "stories260K" / f"{name}.gguf"
    text = (shared_data / "text" / "alice.txt").read_text("utf-8")[1000:3500]
    text = "".join(character for character in text if character.isascii())
    found = measure(Task(str(path), text, 400, 200, 8, {"threads": 1}))
    perplexity, bits, tokens = by_hand(path, text, 400, 200)
    assert found.scored_tokens == tokens
    assert found.perplexity == pytest.approx(perplexity, rel=1e-3)
    assert found.bits_per_byte == pytest.approx(bits, rel=1e-3)


def test_a_coarser_form_is_smaller_and_predicts_a_little_worse(shared_data: Path) -> None:
    """The default text and window, each file in a process of its own."""
    models = [str(shared_data / "models" / "stories260K" / f"{name}.gguf") for name in FILES]
    window = default_window(models, {})
    assert window == 512
    tasks = [Task(model, default_text()[:3000], window, window // 2, 16, {"threads": 1}) for model in models]
    found = [measure_apart(task) for task in tasks]
    weights = [sum(tensor.size for tensor in read_header(Path(model)).tensors) for model in models]
    assert [one.size for one in found] == weights
    assert [one.quantization for one in found] == ["all F32", "F16", "Q8_0"]
    assert found[0].bits_per_byte == pytest.approx(found[1].bits_per_byte, rel=1e-3)
    assert found[0].bits_per_byte < found[2].bits_per_byte < 1.05 * found[0].bits_per_byte
    assert all(20e6 < one.memory < 1e9 for one in found)
    assert all(one.speed is not None and one.speed > 1 for one in found)
