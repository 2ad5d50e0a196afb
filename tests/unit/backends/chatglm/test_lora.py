"""LoRA adapters that were trained on the original networks, over those that run here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sentencepiece")

from safetensors.numpy import save_file

from local_llms.backends import transformers
from local_llms.backends.base import Adapter, Backend, Chunk, LoadOptions
from local_llms.errors import AdapterError
from tests.glm_stories import write_original

OPTIONS = LoadOptions(context_length=64, cache_tokens=256, max_parallel=4, device="cpu", dtype="float32", threads=1)
RANK = 4
QUERY, KEY = 96, 32
"""Rows of query and key of glm-stories."""

Pair = tuple[np.ndarray, np.ndarray]


def write_lora(folder: Path, changes: dict[str, Pair]) -> Path:
    """A PEFT folder: module → A, B."""
    folder.mkdir()
    modules = sorted({name.rsplit(".", 1)[-1] for name in changes})
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "target_modules": modules}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {}
    for name, (a, b) in changes.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = np.ascontiguousarray(a)
        tensors[f"base_model.model.{name}.lora_B.weight"] = np.ascontiguousarray(b)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def pair(random: np.random.Generator, outputs: int, inputs: int) -> Pair:
    shapes = (RANK, inputs), (outputs, RANK)
    a, b = (random.standard_normal(shape).astype(np.float32) / 8 for shape in shapes)
    return a, b


def rows_of(backend: Backend, ids: list[int], path: Path | None) -> np.ndarray:
    adapter = None if path is None else Adapter(path)
    rows = backend.decode([Chunk(0, 0, ids, "all")], adapter).copy()
    backend.free(0)
    return rows


def test_query_key_and_value_are_changed_together(shared_data: Path, tmp_path: Path) -> None:
    """An adapter of ChatGLM3 gives what its parts give on the same network in the library's layout."""
    random = np.random.default_rng(1)
    theirs: dict[str, Pair] = {}
    ours: dict[str, Pair] = {}
    for number in range(4):
        original, native = f"transformer.encoder.layers.{number}.", f"model.layers.{number}."
        a, b = theirs[f"{original}self_attention.query_key_value"] = pair(random, QUERY + 2 * KEY, 96)
        for part, rows in zip("qkv", np.split(b, [QUERY, QUERY + KEY]), strict=True):
            ours[f"{native}self_attn.{part}_proj"] = a, rows
        for one, other, outputs, inputs in (
            ("self_attention.dense", "self_attn.o_proj", 96, 96),
            ("mlp.dense_h_to_4h", "mlp.gate_up_proj", 512, 96),
            ("mlp.dense_4h_to_h", "mlp.down_proj", 96, 256),
        ):
            theirs[original + one] = ours[native + other] = pair(random, outputs, inputs)
    source = shared_data / "models" / "glm-stories"
    found = []
    for folder, changes in (
        (write_original(source, tmp_path / "chatglm3", name="chatglm3"), theirs),
        (source, ours),
    ):
        backend = transformers.load(folder, OPTIONS)
        path = write_lora(tmp_path / f"lora of {folder.name}", changes)
        backend.open_adapter(path)
        ids = [221, 377, 378, 259, 360, 12]
        found.append([rows_of(backend, ids, kind)[:, :512] for kind in (None, path)])
        backend.close()
    for original, native in zip(*found, strict=True):
        np.testing.assert_allclose(original, native, atol=2e-5)
    assert np.abs(found[0][0] - found[0][1]).max() > 0.5


def test_chatglm_6b_has_the_original_names(chatglm_folder: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    names = [f"transformer.layers.{number}.attention.query_key_value" for number in range(3)]
    path = write_lora(tmp_path / "lora", {name: pair(random, 96, 32) for name in names})
    backend = transformers.load(chatglm_folder, OPTIONS)
    backend.open_adapter(path)
    ids = [30, 31, 1, 2]
    base = rows_of(backend, ids, None)
    assert np.abs(rows_of(backend, ids, path) - base).max() > 0.01
    np.testing.assert_array_equal(rows_of(backend, ids, None), base)
    backend.close()


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("transformer.encoder.layers.0.self_attention.query_key_value", QUERY + 2 * KEY + 1),
        ("transformer.encoder.layers.0.self_attention.query_key_value", QUERY + KEY),
        ("transformer.encoder.layers.9.self_attention.query_key_value", QUERY + 2 * KEY),
        ("transformer.layers.0.attention.query_key_value", 3 * QUERY),
    ],
)
def test_adapters_of_other_models(shared_data: Path, tmp_path: Path, name: str, outputs: int) -> None:
    folder = write_original(shared_data / "models" / "glm-stories", tmp_path / "chatglm2", name="chatglm2")
    path = write_lora(tmp_path / "lora", {name: pair(np.random.default_rng(3), outputs, 96)})
    backend = transformers.load(folder, OPTIONS)
    with pytest.raises(AdapterError, match="another model"):
        backend.open_adapter(path)
    backend.close()
