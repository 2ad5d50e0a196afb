"""PEFT folders: what they hold, and what is wrong with those that cannot be used."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from local_llms.errors import AdapterError
from local_llms.hub import changes_vocabulary
from local_llms.hub.peft import read_peft

CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "base_model_name_or_path": "a/base"}
Q, V = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"


def pair(module: str, rank: int = 4, ends: tuple[str, str] = ("lora_A.weight", "lora_B.weight")) -> dict:
    a, b = (f"base_model.model.{module}.{end}" for end in ends)
    return {a: np.ones((rank, 8), np.float32), b: np.ones((6, rank), np.float32)}


def folder(path: Path, tensors: dict | None = None, **config) -> Path:
    path.mkdir(exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    save_file(tensors if tensors is not None else pair(Q), path / "adapter_model.safetensors")
    return path


def read(path: Path):
    return read_peft(path, extra="transformers")


def test_modules_and_their_strengths(tmp_path: Path) -> None:
    found = read(folder(tmp_path / "a", {**pair(Q), **pair(V, rank=2)}))
    assert found.base == "a/base"
    assert {name: (module.strength, module.embedding) for name, module in found.modules.items()} == {
        Q: (4.0, False),
        V: (8.0, False),
    }
    assert (found.whole, found.copies) == ({}, {})


@pytest.mark.parametrize(
    ("config", "strength"),
    [
        ({}, 4.0),
        ({"use_rslora": True}, 8.0),
        ({"alpha_pattern": {"q_proj": 8}}, 2.0),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 8, "q_proj": 4}}, 2.0),
        ({"alpha_pattern": {r"^model\.layers\.0\.self_attn\.q_proj$": 8}}, 2.0),
        ({"alpha_pattern": {"oj": 8, "k_proj": 3}}, 4.0),
        ({"lora_alpha": 1.5}, 1.5 / 4),
    ],
)
def test_a_strength_is_alpha_by_the_rank(tmp_path: Path, config, strength) -> None:
    assert read(folder(tmp_path / "a", **config)).modules[Q].strength == strength


def test_ways_to_write_names(tmp_path: Path) -> None:
    embedding = pair("model.embed_tokens", ends=("lora_embedding_A", "lora_embedding_B"))
    named = pair(V, ends=("lora_A.default.weight", "lora_B.default.weight"))
    copy = {"base_model.model.model.embed_tokens.base_layer.weight": np.ones((8, 6), np.float32)}
    found = read(folder(tmp_path / "a", {**embedding, **named, **copy}))
    assert {name: module.embedding for name, module in found.modules.items()} == {"model.embed_tokens": True, V: False}
    assert list(found.copies) == ["model.embed_tokens.weight"]
    assert found.whole == {}


@pytest.mark.parametrize(
    ("name", "config", "changes"),
    [
        ("base_model.model.model.embed_tokens.weight", {}, True),
        ("base_model.model.lm_head.modules_to_save.default.weight", {"modules_to_save": ["lm_head"]}, True),
        ("base_model.model.gpt_neox.embed_in.weight", {}, True),
        ("base_model.model.model.layers.0.input_layernorm.weight", {}, False),
    ],
)
def test_whole_weights(tmp_path: Path, name, config, changes) -> None:
    path = folder(tmp_path / "a", {**pair(Q), name: np.ones((3, 3), np.float32)}, **config)
    assert list(read(path).whole.values()) == [name]
    assert all(".default" not in plain and "base_model" not in plain for plain in read(path).whole)
    assert changes_vocabulary(path) is changes


def test_what_changes_no_vocabulary(tmp_path: Path) -> None:
    assert not changes_vocabulary(folder(tmp_path / "a"))
    for path in (tmp_path / "missing", tmp_path):
        assert not changes_vocabulary(path)
    pickled = folder(tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").unlink()
    for content, changes in ((b"", False), (b"\x80\x02..base_model.model.lm_head.weightq\x01", True)):
        (pickled / "adapter_model.bin").write_bytes(content)
        assert changes_vocabulary(pickled) is changes


WRONG = {
    "a prefix": {"peft_type": "PREFIX_TUNING"},
    "no type": {"peft_type": None},
    "DoRA": {"use_dora": True},
    "an activated LoRA": {"alora_invocation_tokens": [1, 2]},
    "QA-LoRA": {"use_qalora": True},
    "KaSA": {"kasa_config": {"beta": 1e-4}},
    "a router": {"arrow_config": {"top_k": 2}},
    "biases of its own": {"lora_bias": True},
    "repeated layers": {"layer_replication": [[0, 2], [1, 3]]},
    "tokens of its own": {"trainable_token_indices": [3]},
    "PiSSA": {"init_lora_weights": "pissa"},
    "PiSSA, fast": {"init_lora_weights": "pissa_niter_16"},
    "OLoRA": {"init_lora_weights": "OLoRA"},
    "LoftQ": {"init_lora_weights": "loftq"},
    "merged layers": {"enable_lora": [True, False, True]},
    "a pattern that runs without end": {"alpha_pattern": {"(a+)+$": 3}},
    "no number": {"lora_alpha": "much"},
    "a truth": {"lora_alpha": True},
    "no end": {"lora_alpha": math.inf},
}


@pytest.mark.parametrize("case", WRONG)
def test_configurations_that_cannot_be_used(tmp_path: Path, case) -> None:
    with pytest.raises(AdapterError):
        read(folder(tmp_path / "a", **WRONG[case]))


OF_2023 = {
    "base_model_name_or_path": "decapoda-research/llama-7b-hf",
    "bias": "none",
    "enable_lora": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "merge_weights": False,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 4,
    "target_modules": ["q_proj", "v_proj"],
}
"""As alpaca-lora's adapters have it, those without a task_type."""


@pytest.mark.parametrize(
    "more",
    [{}, {"task_type": "CAUSAL_LM"}, {"fan_in_fan_out": True}, {"init_lora_weights": "gaussian"}, {"bias": "all"}],
)
def test_configurations_of_2023_are_read(tmp_path: Path, more) -> None:
    path = folder(tmp_path / "a", {**pair(Q), **pair(V)})
    (path / "adapter_config.json").write_text(json.dumps({**OF_2023, **more}))
    found = read(path)
    assert {name: module.strength for name, module in found.modules.items()} == {Q: 4.0, V: 4.0}
    assert found.base == "decapoda-research/llama-7b-hf"
    assert not changes_vocabulary(path)


@pytest.mark.parametrize("name", ["lora_magnitude_vector.weight", "lora_B.bias", "bias"])
def test_what_else_is_trained_is_not_left_out(tmp_path: Path, name: str) -> None:
    """Whether or not the configuration speaks of it."""
    more = {f"base_model.model.{Q}.{name}": np.ones(6, np.float32)}
    assert list(read(folder(tmp_path / "a", {**pair(Q), **more})).whole) == [f"{Q}.{name}"]


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"base_model.model.x.lora_A.weight": np.ones((2, 3), np.float32)},
        {**pair(Q), "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": np.ones((6, 5), np.float32)},
        {
            "base_model.model.x.lora_A.weight": np.ones((2, 3, 3), np.float32),
            "base_model.model.x.lora_B.weight": np.ones((3, 2, 2), np.float32),
        },
        pair(Q, rank=0),
    ],
    ids=["nothing", "one half", "ranks", "dimensions", "rank 0"],
)
def test_weights_that_do_not_go_together(tmp_path: Path, tensors) -> None:
    with pytest.raises(AdapterError):
        read(folder(tmp_path / "a", tensors))


def test_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no PEFT folder"):
        read(tmp_path / "missing")
    with pytest.raises(AdapterError, match=r"adapter_config\.json"):
        read(tmp_path)
    path = folder(tmp_path / "a")
    config = path / "adapter_config.json"
    for content in (b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000, b" " * (2 << 20)):
        config.write_bytes(content)
        with pytest.raises(AdapterError):
            read(path)
        with pytest.raises(AdapterError):
            changes_vocabulary(path)
    folder(path)
    weights = path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(AdapterError, match="cut short"):
        read(path)
    weights.unlink()
    with pytest.raises(AdapterError, match="incomplete"):
        read(path)
