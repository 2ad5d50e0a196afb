"""The llama.cpp backend on real models: known texts, known cosines, and the bare loop beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from local_llms.backends import llama_cpp
from local_llms.backends.base import Backend, Chunk, LoadOptions
from tests.benchmarks.bare_loop import BareLoop, Piece, shared_pieces

# One thread: several would wait for each other at every step while other tests use the cores.
ONE_THREAD = LoadOptions(threads=1)

STORY_BEGINNING = (
    ", there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball."
)
"""What the model writes after "Once upon a time"."""


def greedy(backend: Backend, prompt: Sequence[int], count: int) -> list[int]:
    answer: list[int] = []
    new, start = list(prompt), 0
    while len(answer) < count:
        row = backend.decode([Chunk(0, start, new)])[0]
        start += len(new)
        answer.append(int(row.argmax()))
        new = answer[-1:]
    backend.free(0)
    return answer


@pytest.mark.parametrize("beginning", ["Once upon a time", "Lily's mom said"])
def test_half_precision_writes_the_same_story(shared_data: Path, beginning: str) -> None:
    texts = []
    for kind in ("F32", "F16"):
        backend = llama_cpp.load(shared_data / f"models/stories260K/stories260K-{kind}.gguf", ONE_THREAD)
        assert backend.info.bos_id is not None
        answer = greedy(backend, [backend.info.bos_id, *backend.tokenize(beginning)], 120)
        texts.append(b"".join(map(backend.token_bytes, answer)).decode())
        backend.close()
    assert texts[0] == texts[1]
    if beginning.startswith("Once"):
        assert texts[0].startswith(STORY_BEGINNING)


@pytest.mark.real
def test_smollm2_answers(smollm2_path: Path) -> None:
    backend = llama_cpp.load(smollm2_path, LoadOptions(context_length=512, cache_tokens=512, threads=1))
    special = backend.info.special_tokens
    start, end = special["<|im_start|>"], special["<|im_end|>"]
    assert (start, end) == (1, 2)
    assert end in backend.info.end_ids
    assert not backend.info.adds_bos
    turns = [("user\nWhat is the capital of France?", [end]), ("assistant\n", [])]
    prompt: list[int] = []
    for text, after in turns:
        prompt += [start, *backend.tokenize(text), *after, *(backend.tokenize("\n") if after else [])]
    text = b"".join(map(backend.token_bytes, greedy(backend, prompt, 12))).decode("utf-8", "replace")
    assert "Paris" in text
    backend.close()


@pytest.mark.real
def test_cosines_of_minilm(minilm_path: Path) -> None:
    """The first is 0.755 in sentence-transformers."""
    backend = llama_cpp.load(minilm_path, ONE_THREAD)
    texts = ["A man is eating food.", "A man is eating a piece of bread.", "The weather is lovely today."]
    vectors = backend.embed([backend.encode_for_embedding(text) for text in texts])
    cosines = vectors @ vectors.T
    assert cosines[0, 1] == pytest.approx(0.755, abs=0.01)
    assert cosines[0, 2] < 0.2
    assert backend.info.embedding_size == 384
    backend.close()


def test_the_bare_loop_computes_the_same(shared_data: Path) -> None:
    """Alone, together with shared prefixes, and in this backend: the yardstick measures the same work."""
    path = shared_data / "models/stories260K/stories260K-F32.gguf"
    backend = llama_cpp.load(path, ONE_THREAD)
    ids = [1, *backend.tokenize("Once upon a time there was a girl named Lily. She had a dog and a cat. One day,")]
    chance = np.random.default_rng(3)
    prompts = [ids[:length] for length in (30, 5, 9, 9, 20)]
    prompts += [[*ids[:10], *chance.integers(300, 500, length).tolist()] for length in (3, 8, 600, 1)]
    prompts += [[1, 300], [1, 300, 301]]
    with BareLoop(path, threads=1, context=4096) as loop:
        together = loop.many(prompts, 20, ignore_end=True)
        alone = [loop.one(prompt, 20, ignore_end=True).answers[0] for prompt in prompts]
        assert loop.tokenize("Once upon a time") == backend.tokenize("Once upon a time")
    assert together.answers == alone
    assert together.computed_prompt_tokens < sum(map(len, prompts))
    fitting = [number for number, prompt in enumerate(prompts) if len(prompt) < 400]
    assert [greedy(backend, prompts[number], 20) for number in fitting] == [alone[number] for number in fitting]
    backend.close()


def test_shared_prefixes_of_the_bare_loop() -> None:
    assert shared_pieces([[1, 2], [1, 2, 3], [1, 2], [4]]) == [
        Piece(0, 2, (0, 1, 2)),
        Piece(2, 3, (1,)),
        Piece(0, 1, (3,)),
    ]
