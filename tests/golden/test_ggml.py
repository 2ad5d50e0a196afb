"""GGML files compute what the same weights compute elsewhere, and their vocabularies give the original ids."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from local_llms.backends import ctransformers, llama_cpp
from local_llms.backends.base import Backend, Chunk, LoadOptions
from local_llms.backends.ctransformers.byte_pairs import ByteVocabulary
from local_llms.backends.ctransformers.pieces import PieceVocabulary
from tests import ggml_files

pytest.importorskip("ctransformers", reason="the library is absent: pip install local-llms[ctransformers]")

PROMPTS = ["Once upon a time", "Lily's mom said"]
STEPS = 120
TEXTS = [
    "Once upon a time, there's a  girl.\n\n Lily   123 x²½ \t\r\n é日本語😀 \x85 \u2003 a\x1cb don't I'll ''s",
    "def f(x):\n    return x**2  # comment\n",
    "   a",
    "a   ",
    " ",
    "\n \n",
    "'re're",
    "Ω≈ç√∫ Ǆ ⅷ ٣٤ 一二 ʰ ª",
    "<|endoftext|> and </s> and <s>",
]


def greedy(backend: Backend, prompt: list[int]) -> tuple[list[int], np.ndarray]:
    """The most probable tokens after a prompt, and the rows they were chosen from."""
    chosen: list[int] = []
    rows = []
    new, start = prompt, 0
    for _ in range(STEPS):
        rows.append(backend.decode([Chunk(0, start, new)])[0].copy())
        start += len(new)
        new = [int(rows[-1].argmax())]
        chosen += new
    backend.free(0)
    return chosen, np.stack(rows)


FILES = {
    "ggjt v3, F32": (lambda data, path: ggml_files.write_stories(data, path), "stories260K/stories260K-F32"),
    "ggjt v1, F16": (
        lambda data, path: ggml_files.write_stories(data, path, "ggjt", 1, ggml_files.F16),
        "stories260K/stories260K-F16",
    ),
    "ggmf": (
        lambda data, path: ggml_files.write_stories(data, path, "ggmf", 1),
        "stories260K/stories260K-F32",
    ),
    "alpaca.cpp": (
        lambda data, path: ggml_files.write_stories(data, path, "ggml", 0),
        "stories260K/stories260K-F32",
    ),
    "GPT-NeoX": (lambda data, path: ggml_files.write_neox(data, path), "neox-stories/neox-stories-F32"),
}


@pytest.mark.parametrize("name", FILES)
def test_greedy_tokens_are_llama_cpp_s(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """On the same weights. LLaMA's files do not tell the epsilon of their norms, and the library takes another one."""
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(tmp_path / "home"))
    write, reference = FILES[name]
    options = LoadOptions(threads=1)
    old = ctransformers.load(write(shared_data, tmp_path / "old.bin"), options)
    new = llama_cpp.load(shared_data / "models" / f"{reference}.gguf", options)
    with closing(old), closing(new):
        for prompt in PROMPTS:
            ids = new.tokenize(prompt)
            assert old.tokenize(prompt) == ids
            if old.info.adds_bos:
                ids = [1, *ids]
            ours, rows = greedy(old, ids)
            theirs, expected = greedy(new, ids)
            assert ours == theirs
            off = np.abs(rows - expected).max(axis=1) / expected.std(axis=1)
            assert off.max() < 0.02


def test_gpt_j_computes_what_the_paper_s_code_does(tmp_path: Path) -> None:
    """Against a forward pass in numpy. The library's GELU comes from a table in half precision."""
    path, weights = ggml_files.write_gptj(tmp_path / "gptj.bin")
    ids = [5, 70, 100, 200, 256, 259, 3, 90, 91, 92, 12, 13]
    expected = gptj(weights, ids, heads=4, rotated=4, layers=2)
    with closing(ctransformers.load(path, LoadOptions(threads=1))) as backend:
        rows = backend.decode([Chunk(0, 0, ids, "all")])
    assert (np.abs(rows - expected).max(axis=1) / expected.std(axis=1)).max() < 0.01
    assert (rows.argmax(axis=1) == expected.argmax(axis=1)).all()


def gptj(weights: dict[str, np.ndarray], ids: list[int], *, heads: int, rotated: int, layers: int) -> np.ndarray:
    """Logits after each token. Attention and feed-forward read the same normalized input (EleutherAI, GPT-J)."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    x = w["transformer.wte.weight"][ids]
    count, width = x.shape
    size = width // heads
    angles = np.arange(count)[:, None] / 10000 ** (np.arange(0, rotated, 2) / rotated)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

    def norm(value: np.ndarray, name: str) -> np.ndarray:
        centred = value - value.mean(axis=1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
        return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]

    def rotate(value: np.ndarray) -> np.ndarray:
        value = value.copy()
        even, odd = value[..., 0:rotated:2].copy(), value[..., 1:rotated:2].copy()
        value[..., 0:rotated:2], value[..., 1:rotated:2] = even * cos - odd * sin, odd * cos + even * sin
        return value

    mask = np.triu(np.full((count, count), -np.inf), 1)
    for layer in range(layers):
        block = f"transformer.h.{layer}."
        h = norm(x, f"{block}ln_1")
        q, k, v = ((h @ w[f"{block}attn.{name}_proj.weight"].T).reshape(count, heads, size) for name in ("q", "k", "v"))
        scores = np.einsum("qhd,khd->hqk", rotate(q), rotate(k)) / math.sqrt(size) + mask
        chances = np.exp(scores - scores.max(axis=2, keepdims=True))
        chances /= chances.sum(axis=2, keepdims=True)
        attended = np.einsum("hqk,khd->qhd", chances, v).reshape(count, width) @ w[f"{block}attn.out_proj.weight"].T
        inner = h @ w[f"{block}mlp.fc_in.weight"].T + w[f"{block}mlp.fc_in.bias"]
        inner = 0.5 * inner * (1 + np.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        x = x + attended + inner @ w[f"{block}mlp.fc_out.weight"].T + w[f"{block}mlp.fc_out.bias"]
    x = norm(x, "transformer.ln_f")
    return x @ w["lm_head.weight"].T + w["lm_head.bias"]


@pytest.fixture(scope="module")
def tokenizers(shared_data: Path) -> dict[str, object]:
    library = pytest.importorskip("tokenizers", reason="the library tokenizers is absent")
    return {
        name: library.Tokenizer.from_file(str(shared_data / "models" / folder / "tokenizer.json"))
        for name, folder in (("pieces", "stories260K/hf"), ("bytes", "neox-stories"))
    }


@pytest.mark.parametrize("lossy", [False, True])
def test_ids_of_byte_pairs(shared_data: Path, tokenizers, lossy: bool) -> None:
    """Although the file has no merges, and in the lossy form U+FFFD for what is no whole character."""
    tokens = ggml_files.neox_vocabulary(shared_data)
    if lossy:
        tokens = [text.decode("utf-8", "replace").encode() for text in tokens]
    vocabulary = ByteVocabulary(tokens)
    for text in TEXTS[:-1]:
        ids = vocabulary.tokenize(text)
        assert ids == tokenizers["bytes"].encode(text, add_special_tokens=False).ids, text
        assert b"".join(map(vocabulary.token_bytes, ids)).decode() == text
    ids = vocabulary.tokenize(TEXTS[-1])
    assert 0 not in ids
    assert b"".join(map(vocabulary.token_bytes, ids)).decode() == TEXTS[-1]


@pytest.mark.parametrize("scored", [False, True])
def test_ids_of_pieces(shared_data: Path, tokenizers, scored: bool) -> None:
    """With scores, and where the oldest files have none."""
    tokens, scores = ggml_files.piece_bytes(shared_data / "models" / "stories260K" / "stories260K-F32.gguf")
    vocabulary = PieceVocabulary(tokens, scores if scored else ())
    for text in TEXTS[:-1]:
        ids = vocabulary.tokenize(text)
        assert ids == tokenizers["pieces"].encode(text, add_special_tokens=False).ids, text
    ids = vocabulary.tokenize(TEXTS[-1])
    assert not {0, 1, 2} & set(ids)
    assert b"".join(map(vocabulary.token_bytes, ids)).decode() == " " + TEXTS[-1]
