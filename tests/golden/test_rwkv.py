"""Logits and token ids that RWKV's own programs give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from local_llms.backends import rwkv
from local_llms.backends.base import Chunk, LoadOptions
from local_llms.backends.rwkv.vocabulary import choose_vocabulary

MODELS = ["4v0-660K", "5v2-730K", "6v0-1m", "7v0-834K"]


@pytest.mark.parametrize("model", MODELS)
def test_logits_after_three_bytes(model: str, data: Path) -> None:
    folder = data / "models/rwkv"
    expected = np.fromfile(folder / f"expected-logits-{model}.bin", "<f4")
    backend = rwkv.load(folder / f"tiny-rwkv-{model}-FP32.bin", LoadOptions(max_parallel=2, threads=1))
    try:
        ids = backend.tokenize('"in')
        assert ids == [0x22, 0x69, 0x6E]
        together = backend.decode([Chunk(0, 0, ids)])[0]
        assert np.abs(together - expected).max() <= 1e-5
        for place, token in enumerate(ids):
            one_by_one = backend.decode([Chunk(1, place, [token])])[0]
        assert np.abs(one_by_one - expected).max() <= 1e-5
    finally:
        backend.close()


def test_token_ids_of_the_world_vocabulary(data: Path) -> None:
    pytest.importorskip("rwkv")
    vocabulary, _ = choose_vocabulary(Path("model.pth"), 65536)
    lines = (data / "prompts/token_goldens.jsonl").read_text("utf-8").splitlines()
    cases = [case for case in map(json.loads, lines) if "rwkv_vocab_v20230424" in case["model"]]
    assert len(cases) >= 18
    wrong = [case["text"] for case in cases if vocabulary.tokenize(case["text"]) != case["ids"]]
    assert not wrong
    for case in cases:
        assert b"".join(map(vocabulary.token_bytes, case["ids"])).decode() == case["text"]
