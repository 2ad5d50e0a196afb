"""What is computed beside an answer changes nothing in it but by llama.cpp's rounding.

llama.cpp computes in another order where a batch has another shape or a sequence lies elsewhere in the cache, and a
quantized model rounds that to other numbers. So a greedy answer may become another one in a batch, where two tokens are
nearly equally probable. That it is rounding and no mixing up of requests is shown here: logits depend on how many
sequences stand beside, and not on what these say; where answers differ, what decided between the two tokens is no more
than the shape of a batch moves logits by itself; and in full precision, all else being equal, nothing moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from local_llms.backends import llama_cpp
from local_llms.backends.base import Backend, Chunk, LoadOptions
from local_llms.models import Stream, load_model
from local_llms.types import Completion, Message

pytestmark = pytest.mark.real

QUESTIONS = [f"Name a colour. {number}" for number in range(8)]
SHAPES = (2, 3, 8)
"""Sequences in a batch."""


@pytest.fixture(scope="module")
def backend(smollm2_path: Path) -> Iterator[Backend]:
    loaded = llama_cpp.load(smollm2_path, LoadOptions(context_length=512, cache_tokens=4096, max_parallel=8, threads=1))
    yield loaded
    loaded.close()


def steps(backend: Backend, prompt: list[int], answer: list[int], rows: int, seed: int) -> list[np.ndarray]:
    """Logits behind the prompt and behind each token of the answer, ``rows - 1`` sequences of noise beside it."""
    chance = np.random.default_rng(seed)

    def noise(count: int) -> list[int]:
        return [int(token) for token in chance.integers(100, 40_000, count)]

    for sequence in range(8):
        backend.free(sequence)
    others = range(1, rows)
    found = backend.decode([Chunk(0, 0, prompt), *(Chunk(other, 0, noise(len(prompt))) for other in others)])
    logits = [np.array(found[0])]
    for place, token in enumerate(answer, start=len(prompt)):
        found = backend.decode([Chunk(0, place, [token]), *(Chunk(other, place, noise(1)) for other in others)])
        logits.append(np.array(found[0]))
    return logits


@pytest.mark.parametrize("rows", SHAPES)
def test_what_others_say_does_not_matter(backend: Backend, rows: int) -> None:
    """To the bit."""
    prompt, answer = backend.tokenize("Once upon a time there was a river."), backend.tokenize(" It ran to the sea.")
    first, second = (steps(backend, prompt, answer, rows, seed) for seed in (1, 2))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_answers_differ_only_where_rounding_decides(backend: Backend, smollm2_path: Path) -> None:
    """The questions of llama-index's contract, at which it happens."""
    options = {"temperature": 0, "max_tokens": 40, "repetition_penalty": 1.1, "top_logprobs": 20}
    with load_model("smollm2-135m-instruct", context_length=512, max_parallel=8, threads=1) as model:
        prompts = [[token.id for token in model.preview([Message("user", question)]).tokens] for question in QUESTIONS]
        alone = [model.generate(question, **options) for question in QUESTIONS]
        together = [stream.result() for stream in [model.submit(question, **options) for question in QUESTIONS]]
    for prompt, one, other in zip(prompts, alone, together, strict=True):
        assert one.usage.prompt_tokens == len(prompt)
        if one.token_ids == other.token_ids:
            continue
        place = next(at for at, (a, b) in enumerate(zip(one.token_ids, other.token_ids, strict=False)) if a != b)
        answer = list(one.token_ids[:place])
        lone = steps(backend, prompt, answer, 1, 0)[-1]
        moved = max(float(np.abs(steps(backend, prompt, answer, rows, 0)[-1] - lone).max()) for rows in SHAPES)
        tokens = one.token_ids[place], other.token_ids[place]
        # A margin has two logits in it.
        assert abs(margin(one, place, *tokens) - margin(other, place, *tokens)) <= 2 * moved


def test_in_full_precision_nothing_moves(data: Path) -> None:
    """Requests that share a beginning, end one after the other, and leave holes in the cache for those that go on."""
    path = data / "models/stories260K/stories260K-F32.gguf"
    prompts = [f"Once upon a time there was a {animal}" for animal in ("dog", "cat", "bird", "fish", "bear", "frog")]
    lengths = [3, 60, 5, 40, 4, 50]
    with load_model(path, template="plain", cache_dtype="f32", max_parallel=8, threads=1) as model:

        def submit(number: int) -> Stream:
            return model.submit(prompts[number], temperature=0, logprobs=True, max_tokens=lengths[number])

        alone = [submit(number).result() for number in range(6)]
        together = [stream.result() for stream in [submit(number) for number in range(6)]]
        assert model.stats().steps < sum(one.usage.completion_tokens for one in (*alone, *together))
    for one, other in zip(alone, together, strict=True):
        assert one.token_ids == other.token_ids
        assert np.allclose(one.token_logprobs, other.token_logprobs, atol=1e-3)


def margin(answer: Completion, place: int, chosen: int, instead: int) -> float:
    """How much more probable one token was than another, as logarithm."""
    likely = {token.token_id: token.logprob for token in answer.top_logprobs[place]}
    return likely[chosen] - likely[instead]
