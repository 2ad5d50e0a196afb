"""Measures the transformers backend beside the library's own ``generate``. By hand, with nothing else running::

    python -m tests.benchmarks.transformers_speed             # a model of SmolLM2-135M's size, random weights
    python -m tests.benchmarks.transformers_speed --threads 1 --runs 5

Sides take turns, each run is warm, and medians are shown. ``decoding`` counts new tokens per second after the prompts
were read; ``together`` counts them over prompts and answers, as ``generate`` does it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from local_llms.backends import transformers
from local_llms.backends.base import Backend, Chunk, LoadOptions

SEQUENCES = 8
PROMPT = 40
ANSWER = 64


def write_model(folder: Path) -> None:
    """A llama model with the numbers of SmolLM2-135M's configuration, and any tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
    )
    with contextlib.redirect_stderr(io.StringIO()):
        LlamaForCausalLM(config).save_pretrained(folder)
    spec = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(spec))


@contextlib.contextmanager
def model_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    try:
        write_model(folder)
        yield folder
    finally:
        shutil.rmtree(folder)


def ours(backend: Backend, prompts: list[list[int]]) -> tuple[float, float]:
    """New tokens a second: with the prompts, and decoding alone."""
    start = time.perf_counter()
    rows = backend.decode([Chunk(number, 0, ids) for number, ids in enumerate(prompts)])
    read = time.perf_counter()
    for step in range(ANSWER - 1):
        new = rows.argmax(1).tolist()
        rows = backend.decode([Chunk(number, PROMPT + step, [token]) for number, token in enumerate(new)])
    end = time.perf_counter()
    for number in range(len(prompts)):
        backend.free(number)
    return len(prompts) * ANSWER / (end - start), len(prompts) * (ANSWER - 1) / (end - read)


def stock(model: Any, prompts: list[list[int]]) -> float:
    """New tokens a second of ``generate`` on one batch; prompts of equal length need no padding."""
    ids = torch.tensor(prompts)
    options = {"max_new_tokens": ANSWER, "min_new_tokens": ANSWER, "do_sample": False, "pad_token_id": 0}
    start = time.perf_counter()
    with torch.inference_mode():
        model.generate(ids, attention_mask=torch.ones_like(ids), eos_token_id=None, **options)
    return len(prompts) * ANSWER / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    chance = np.random.default_rng(0)
    prompts = [chance.integers(3, 40000, PROMPT).tolist() for _ in range(SEQUENCES)]
    figures: dict[str, list[float]] = {}
    with model_folder() as folder:
        backend = transformers.load(folder, LoadOptions(threads=given.threads))
        with contextlib.redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        ours(backend, prompts)
        stock(model, prompts)
        for _ in range(given.runs):
            for count in (1, SEQUENCES):
                together, decoding = ours(backend, prompts[:count])
                figures.setdefault(f"ours, {count} together", []).append(together)
                figures.setdefault(f"ours, {count} decoding", []).append(decoding)
                figures.setdefault(f"generate, {count} together", []).append(stock(model, prompts[:count]))
    median = {name: statistics.median(values) for name, values in figures.items()}
    for name, value in median.items():
        spread = f"{min(figures[name]):.1f} to {max(figures[name]):.1f}"
        print(f"{name:24} {value:8.1f} tokens a second ({spread})")
    many, one = f"ours, {SEQUENCES}", "ours, 1"
    print(
        f"{SEQUENCES} against one, decoding: {median[f'{many} decoding'] / median[f'{one} decoding']:.2f} (at least 3)"
    )
    print(f"{SEQUENCES} against one, together: {median[f'{many} together'] / median[f'{one} together']:.2f}")
    share = median[f"{many} together"] / median[f"generate, {SEQUENCES} together"]
    print(f"{SEQUENCES} against generate: {share:.2f} (at least 0.9)")


if __name__ == "__main__":
    main()
