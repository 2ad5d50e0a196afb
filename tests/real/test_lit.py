"""Lit-LLaMA and LitGPT checkpoints, written from known models, give the known models' text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
from safetensors.torch import load_file  # noqa: E402 - comes with torch's extra

from local_llms.backends import transformers  # noqa: E402
from local_llms.backends.base import Backend, Chunk, LoadOptions  # noqa: E402
from local_llms.errors import ModelFileError, UnsupportedFeature  # noqa: E402

ONE_THREAD = LoadOptions(threads=1)
HEADS, GROUPS, SIZE = 8, 4, 8
LITGPT = {
    "name": "stories", "n_layer": 5, "n_head": HEADS, "n_embd": 64, "n_query_groups": GROUPS, "head_size": SIZE,
    "block_size": 512, "intermediate_size": 172, "rotary_percentage": 1.0, "norm_class_name": "RMSNorm",
    "norm_eps": 1e-5, "mlp_class_name": "LLaMAMLP", "rope_base": 10000, "parallel_residual": False,
}  # fmt: skip


def story(backend: Backend) -> str:
    begin = [backend.info.bos_id] if backend.info.adds_bos else []
    new, start, answer = [*begin, *backend.tokenize("Once upon a time")], 0, []
    for _ in range(120):
        row = backend.decode([Chunk(0, start, new)])[0]
        start += len(new)
        new = [int(row.argmax())]
        answer += new
    text = b"".join(map(backend.token_bytes, answer)).decode()
    backend.close()
    return text


def lit_llama(weights: dict[str, Any]) -> dict[str, Any]:
    """In Meta's order of rows, and with keys and values for every head: Lit-LLaMA knows no groups."""

    def neighbours(matrix):
        return matrix.view(HEADS, 2, SIZE // 2, 64).transpose(1, 2).reshape(64, 64)

    def every_head(matrix):
        return matrix.view(GROUPS, SIZE, 64).repeat_interleave(HEADS // GROUPS, 0).reshape(64, 64)

    found = {
        "lm_head.weight": weights["model.embed_tokens.weight"],
        "transformer.wte.weight": weights["model.embed_tokens.weight"],
        "transformer.ln_f.scale": weights["model.norm.weight"],
    }
    for layer in range(5):
        theirs, ours = f"transformer.h.{layer}", f"model.layers.{layer}"
        q, k, v = (weights[f"{ours}.self_attn.{letter}_proj.weight"] for letter in "qkv")
        q, k, v = neighbours(q), neighbours(every_head(k)), every_head(v)
        found |= {
            f"{theirs}.attn.c_attn.weight": torch.cat((q, k, v)),
            f"{theirs}.attn.c_proj.weight": weights[f"{ours}.self_attn.o_proj.weight"],
            f"{theirs}.mlp.c_fc1.weight": weights[f"{ours}.mlp.gate_proj.weight"],
            f"{theirs}.mlp.c_fc2.weight": weights[f"{ours}.mlp.up_proj.weight"],
            f"{theirs}.mlp.c_proj.weight": weights[f"{ours}.mlp.down_proj.weight"],
            f"{theirs}.rms_1.scale": weights[f"{ours}.input_layernorm.weight"],
            f"{theirs}.rms_2.scale": weights[f"{ours}.post_attention_layernorm.weight"],
        }
    return found


def litgpt(weights: dict[str, Any], older: bool) -> dict[str, Any]:
    found = {
        "lm_head.weight": weights["model.embed_tokens.weight"],
        "transformer.wte.weight": weights["model.embed_tokens.weight"],
        "transformer.ln_f.weight": weights["model.norm.weight"],
    }
    for layer in range(5):
        theirs, ours = f"transformer.h.{layer}", f"model.layers.{layer}"
        q, k, v = (weights[f"{ours}.self_attn.{letter}_proj.weight"] for letter in "qkv")
        if older:
            parts = zip(q.split(HEADS // GROUPS * SIZE), k.split(SIZE), v.split(SIZE), strict=True)
            found[f"{theirs}.attn.attn.weight"] = torch.cat([part for group in parts for part in group])
        else:
            found[f"{theirs}.attn.qkv.weight"] = torch.cat((q, k, v))
        found |= {
            f"{theirs}.attn.proj.weight": weights[f"{ours}.self_attn.o_proj.weight"],
            f"{theirs}.mlp.fc_1.weight": weights[f"{ours}.mlp.gate_proj.weight"],
            f"{theirs}.mlp.fc_2.weight": weights[f"{ours}.mlp.up_proj.weight"],
            f"{theirs}.mlp.proj.weight": weights[f"{ours}.mlp.down_proj.weight"],
            f"{theirs}.norm_1.weight": weights[f"{ours}.input_layernorm.weight"],
            f"{theirs}.norm_2.weight": weights[f"{ours}.post_attention_layernorm.weight"],
        }
    return found


def write(folder: Path, source: Path, weights: dict[str, Any], config: dict[str, Any], name: str) -> None:
    torch.save({"model": weights}, folder / "lit_model.pth")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / file, folder)
    lines = "".join(f"{key}: {value}\n" for key, value in config.items())
    (folder / name).write_text(json.dumps(config) if name.endswith("json") else lines)


@pytest.fixture
def stories(shared_data: Path) -> tuple[Path, dict[str, Any], str]:
    folder = shared_data / "models/stories260K/hf"
    return folder, load_file(folder / "model.safetensors"), story(transformers.load(folder, ONE_THREAD))


WAYS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], dict[str, Any], str]] = {
    "lit-llama": (lit_llama, {"n_head": HEADS, "block_size": 512}, "lit_config.json"),
    "litgpt": (lambda weights: litgpt(weights, older=False), LITGPT, "model_config.yaml"),
    "litgpt of 2023": (lambda weights: litgpt(weights, older=True), LITGPT, "lit_config.json"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_story(stories: tuple[Path, dict[str, Any], str], tmp_path: Path, way: str) -> None:
    source, weights, expected = stories
    renaming, config, name = WAYS[way]
    write(tmp_path, source, renaming(weights), config, name)
    assert transformers.claims(tmp_path) == "it is a folder with lit_model.pth"
    assert story(transformers.load(tmp_path, ONE_THREAD)) == expected


@pytest.mark.parametrize("older", [False, True])
def test_gpt_neox_by_litgpt(shared_data: Path, tmp_path: Path, older: bool) -> None:
    source = shared_data / "models/neox-stories"
    expected = story(transformers.load(source, ONE_THREAD))
    names = {
        "embed_out": "lm_head", "gpt_neox.embed_in": "transformer.wte", "gpt_neox.final_layer_norm": "transformer.ln_f",
        "gpt_neox.layers": "transformer.h", "input_layernorm": "norm_1", "post_attention_layernorm": "norm_2",
        "attention.dense": "attn.proj", "mlp.dense_h_to_4h": "mlp.fc", "mlp.dense_4h_to_h": "mlp.proj",
        "attention.query_key_value": "attn.attn" if older else "attn.qkv",
    }  # fmt: skip
    weights: dict[str, Any] = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        if ".attn.qkv." in name:
            tensor = tensor.view(6, 3, 16, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape).contiguous()
        weights[name] = tensor
    config = {
        "name": "neox", "n_layer": 4, "n_head": 6, "n_embd": 96, "n_query_groups": 6, "head_size": 16,
        "block_size": 256, "intermediate_size": 384, "rotary_percentage": 0.25, "norm_class_name": "LayerNorm",
        "norm_eps": 1e-5, "mlp_class_name": "GptNeoxMLP", "parallel_residual": True,
    }  # fmt: skip
    write(tmp_path, source, weights, config, "model_config.yaml")
    assert story(transformers.load(tmp_path, ONE_THREAD)) == expected


def test_what_is_not_read_says_so(stories: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    source, weights, _ = stories
    write(tmp_path, source, litgpt(weights, older=False), {**LITGPT, "mlp_class_name": "GemmaMLP"}, "model_config.yaml")
    with pytest.raises(UnsupportedFeature, match="stories"):
        transformers.load(tmp_path, ONE_THREAD)
    (tmp_path / "model_config.yaml").write_text("n_head: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ModelFileError, match="damaged"):
        transformers.load(tmp_path, ONE_THREAD)
    (tmp_path / "model_config.yaml").unlink()
    with pytest.raises(ModelFileError, match=r"model_config\.yaml"):
        transformers.load(tmp_path, ONE_THREAD)
