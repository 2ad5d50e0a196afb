"""The transformers backend beside the library's own ``generate``, PEFT, and llama.cpp."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from local_llms import load_model  # noqa: E402 - after the check that the libraries are there
from local_llms.backends import llama_cpp, transformers  # noqa: E402
from local_llms.backends.base import Adapter, Backend, Chunk, LoadOptions  # noqa: E402

ONE_THREAD = LoadOptions(threads=1)
LENGTH = 120

MODELS = {
    "stories260K/hf": "stories260K/stories260K-F32.gguf",
    "neox-stories": "neox-stories/neox-stories-F32.gguf",
    "glm-stories": "glm-stories/glm-stories-F32.gguf",
}


def greedy(
    backend: Backend, prompt: Sequence[int], count: int = LENGTH, adapter: Adapter | None = None
) -> tuple[list[int], list[Any]]:
    """Tokens, and the rows that they were chosen from."""
    answer: list[int] = []
    rows: list[Any] = []
    new, start = list(prompt), 0
    while len(answer) < count:
        rows.append(backend.decode([Chunk(0, start, new)], adapter)[0].copy())
        start += len(new)
        answer.append(int(rows[-1].argmax()))
        new = answer[-1:]
    backend.free(0)
    return answer, rows


def library(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    with contextlib.redirect_stderr(io.StringIO()):
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def generate(model: Any, prompt: Sequence[int], count: int = LENGTH) -> list[int]:
    with torch.inference_mode():
        ids = torch.tensor([list(prompt)])
        options = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
        found = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, eos_token_id=None, **options)
    return list(found[0].tolist()[len(prompt) :])


def ids_of(backend: Backend, text: str) -> list[int]:
    begin = [backend.info.bos_id] if backend.info.adds_bos and backend.info.bos_id is not None else []
    return [*begin, *backend.tokenize(text)]


@pytest.mark.parametrize("folder", MODELS)
@pytest.mark.parametrize("beginning", ["Once upon a time", "One day", "Lily's mom said"])
def test_the_same_story_in_three_ways(shared_data: Path, folder: str, beginning: str) -> None:
    ours = transformers.load(shared_data / "models" / folder, ONE_THREAD)
    prompt = ids_of(ours, beginning)
    answer, rows = greedy(ours, prompt)
    assert answer == generate(library(shared_data / "models" / folder), prompt)
    other = llama_cpp.load(shared_data / "models" / MODELS[folder], ONE_THREAD)
    assert other.tokenize(beginning) == ours.tokenize(beginning)
    text = b"".join(map(ours.token_bytes, answer))
    theirs, their_rows = greedy(other, prompt)
    step = next((step for step in range(LENGTH) if theirs[step] != answer[step]), LENGTH)
    if step < LENGTH:
        # llama.cpp computes GPT-NeoX's GELU from a table of half precision: two words that are as likely as each other
        # to the third decimal may change places.
        both = [answer[step], theirs[step]]
        assert folder == "neox-stories"
        assert np.abs(rows[step][both] - their_rows[step][both]).max() < 0.002
        assert abs(rows[step][both[0]] - rows[step][both[1]]) < 0.002
    else:
        assert b"".join(map(other.token_bytes, theirs)) == text
    ours.close()
    other.close()


def test_the_first_stories_are_the_same_to_the_last_token(shared_data: Path) -> None:
    for folder, file in MODELS.items():
        ours = transformers.load(shared_data / "models" / folder, ONE_THREAD)
        other = llama_cpp.load(shared_data / "models" / file, ONE_THREAD)
        prompt = ids_of(ours, "Once upon a time")
        assert greedy(ours, prompt)[0] == greedy(other, prompt)[0], folder


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT uses a name that transformers will drop
def test_a_lora_as_peft_computes_it(shared_data: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    folder, adapter = shared_data / "models/stories260K/hf", shared_data / "models/stories260K-lora"
    ours = transformers.load(folder, ONE_THREAD)
    prompt = ids_of(ours, "Once upon a time")
    base = greedy(ours, prompt)
    ours.open_adapter(adapter)
    changed = greedy(ours, prompt, adapter=Adapter(adapter))[0]
    assert changed == generate(peft.PeftModel.from_pretrained(library(folder), str(adapter)), prompt)
    assert changed != base[0]
    again = greedy(ours, prompt)
    assert again[0] == base[0]
    assert all((one == other).all() for one, other in zip(again[1], base[1], strict=True)), "the base has changed"
    other = llama_cpp.load(shared_data / "models/stories260K/stories260K-F32.gguf", ONE_THREAD)
    gguf = adapter / "stories260K-lora-shakespeare-F32.gguf"
    other.open_adapter(gguf)
    assert greedy(other, prompt, adapter=Adapter(gguf))[0] == changed


def test_eight_requests_half_of_them_with_an_adapter(shared_data: Path) -> None:
    adapter = str(shared_data / "models/stories260K-lora")
    beginnings = ["Once upon a time", "The king", "One day", "My lord"]
    with load_model(shared_data / "models/stories260K/hf", template="plain", threads=1) as model:
        options: dict[str, Any] = {"temperature": 0, "max_tokens": 40}
        alone = [model.generate(text, adapter=kind, **options).text for text in beginnings for kind in (None, adapter)]
        streams = [model.submit(text, adapter=kind, **options) for text in beginnings for kind in (None, adapter)]
        together = [stream.result().text for stream in streams]
    assert together == alone
    assert all(one != other for one, other in zip(alone[::2], alone[1::2], strict=True))


QUESTIONS = (
    "What is the capital of France?", "Name a colour.", "Say hello in Spanish.", "What is 2 + 2?", "Who wrote Hamlet?",
    "What do bees make?", "Is the sun a star?", "Name an animal.", "What is ice?", "How many days has a week?",
)  # fmt: skip


@pytest.mark.real
def test_a_quantized_gguf_file_in_two_ways(smollm2_path: Path, tmp_path: Path) -> None:
    """The same greedy answer, or a first difference that is smaller than what llama.cpp's own rounding makes.

    llama.cpp multiplies Q4_1 weights with inputs that it rounds to eight bits; torch has the weights unpacked. The same
    weights unpacked in a file of F32 show how much that is.
    """
    from tests.benchmarks.material import requantized

    options = LoadOptions(context_length=256, cache_tokens=512, threads=1)
    ours, theirs = transformers.load(smollm2_path, options), llama_cpp.load(smollm2_path, options)
    exact = llama_cpp.load(requantized(smollm2_path, "F32", tmp_path), options)
    assert ours.info.special_tokens == theirs.info.special_tokens
    same = 0
    for question in QUESTIONS:
        special = ours.info.special_tokens
        turns = [special["<|im_start|>"], *ours.tokenize(f"user\n{question}"), special["<|im_end|>"]]
        prompt = [*turns, *ours.tokenize("\n"), special["<|im_start|>"], *ours.tokenize("assistant\n")]
        assert theirs.tokenize(f"user\n{question}") == ours.tokenize(f"user\n{question}")
        answer, rows = greedy(ours, prompt, 10)
        unpacked, unpacked_rows = greedy(exact, prompt, 10)
        rounded, rounded_rows = greedy(theirs, prompt, 10)
        step = next((step for step in range(10) if answer[step] != unpacked[step]), None)
        # Of the same numbers both make the same words, but for a half-precision KV cache.
        if step is not None:
            assert gap(rows[step]) < 0.05, f"{question}: {step}"
        step = next((step for step in range(10) if answer[step] != rounded[step]), None)
        if step is None:
            same += 1
            continue
        rounding = (
            np.abs(rounded_rows[step] - unpacked_rows[step]).max() if rounded[:step] == unpacked[:step] else np.inf
        )
        both = [answer[step], rounded[step]]
        print(f"{question} step {step}: ours {rows[step][both]}, llama.cpp {rounded_rows[step][both]}, {rounding:.2f}")
        assert np.abs(rows[step] - rounded_rows[step])[both].max() <= rounding + 0.05
    print(f"{same} of {len(QUESTIONS)} answers are the same")


def gap(row: Any) -> float:
    """Between the two most probable tokens."""
    second, first = np.sort(row)[-2:]
    return float(first - second)
