"""A BERT model of Sentence Transformers becomes one GGUF file, once."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from local_llms.errors import MissingDependency, ModelFileError
from local_llms.hub import bert_gguf, check_gguf, fetch, fetching
from local_llms.hub.bert_gguf import convert
from local_llms.hub.source import PackageSource
from tests.unit.hub.conftest import FakePip, Offer, left_in_cache
from tests.unit.hub.wheels import Card, member

WIDTH, POSITIONS = 8, 32
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "eat", "##ing", "food", "."]
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": len(VOCABULARY),
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
}


def shapes() -> dict[str, tuple[int, ...]]:
    layer = "encoder.layer.0."
    found: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.position_ids": (1, POSITIONS),
        "pooler.dense.weight": (WIDTH, WIDTH),
        "pooler.dense.bias": (WIDTH,),
    }
    for norm in ("embeddings.LayerNorm", f"{layer}attention.output.LayerNorm", f"{layer}output.LayerNorm"):
        found |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for dense in ("self.query", "self.key", "self.value", "output.dense"):
        found |= {f"{layer}attention.{dense}.weight": (WIDTH, WIDTH), f"{layer}attention.{dense}.bias": (WIDTH,)}
    for dense, rows, columns in (("intermediate.dense", 2 * WIDTH, WIDTH), ("output.dense", WIDTH, 2 * WIDTH)):
        found |= {f"{layer}{dense}.weight": (rows, columns), f"{layer}{dense}.bias": (rows,)}
    return found


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes().items()}


def write(folder: Path, weights: Mapping[str, np.ndarray], **config: object) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    save_file(dict(weights), folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", "utf-8")
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}), "utf-8")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}', "utf-8")
    return {path.name: path for path in folder.iterdir()}


def test_the_file_holds_the_model(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    target = tmp_path / "model.gguf"
    convert(write(tmp_path / "source", weights), target)
    header = check_gguf(target)
    assert header.architecture == "bert"
    expected = {
        "bert.context_length": 16,
        "bert.embedding_length": WIDTH,
        "bert.feed_forward_length": 2 * WIDTH,
        "bert.block_count": 1,
        "bert.attention.head_count": 2,
        "bert.attention.causal": False,
        "bert.pooling_type": 1,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.mask_token_id": 4,
        "tokenizer.ggml.token_type_count": 2,
    }
    assert {key: header.metadata[key] for key in expected} == expected
    assert header.strings("tokenizer.ggml.tokens") == [*VOCABULARY[:5], "▁eat", "ing", "▁food", "▁."]
    assert header.numbers("tokenizer.ggml.token_type").tolist() == [3] * 5 + [1] * 4
    tensors = {tensor.name: tensor for tensor in header.tensors}
    assert len(tensors) == len(shapes()) - 3
    data = target.read_bytes()

    def stored(name: str) -> np.ndarray:
        tensor = tensors[name]
        start = header.data_offset + tensor.offset
        kind = {"F16": np.float16, "F32": np.float32}[tensor.type.name]
        return np.frombuffer(data[start : start + tensor.size], kind).reshape(tensor.shape[::-1])

    pairs = {
        "token_embd.weight": ("embeddings.word_embeddings.weight", np.float16),
        "token_types.weight": ("embeddings.token_type_embeddings.weight", np.float32),
        "token_embd_norm.bias": ("embeddings.LayerNorm.bias", np.float32),
        "blk.0.attn_v.weight": ("encoder.layer.0.attention.self.value.weight", np.float16),
        "blk.0.attn_output_norm.weight": ("encoder.layer.0.attention.output.LayerNorm.weight", np.float32),
        "blk.0.ffn_down.weight": ("encoder.layer.0.output.dense.weight", np.float16),
        "blk.0.layer_output_norm.bias": ("encoder.layer.0.output.LayerNorm.bias", np.float32),
    }
    for name, (origin, kind) in pairs.items():
        np.testing.assert_array_equal(stored(name), weights[origin].astype(kind))
    positions = weights["embeddings.position_embeddings.weight"][:16]
    np.testing.assert_array_equal(stored("position_embd.weight"), positions)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    files = write(tmp_path / "source", weights)
    prefixed = write(tmp_path / "prefixed", {f"bert.{name}": weights[name] for name in reversed(weights)})
    for name, source in (("one", files), ("two", files), ("three", prefixed)):
        convert(source, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == (tmp_path / "three").read_bytes()


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"vocab_size": 10}, "vocab.txt has 9 tokens for 10"),
    ],
)
def test_another_model_is_refused(
    tmp_path: Path, weights: dict[str, np.ndarray], config: dict[str, object], what: str
) -> None:
    with pytest.raises(ModelFileError, match=what):
        convert(write(tmp_path / "source", weights, **config), tmp_path / "model.gguf")


def test_an_unknown_tensor_is_refused(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    weights["classifier.extra"] = np.zeros(2, np.float32)
    with pytest.raises(ModelFileError, match=r"tensor classifier\.extra"):
        convert(write(tmp_path / "source", weights), tmp_path / "model.gguf")


def test_a_missing_file_is_named(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    files = write(tmp_path / "source", weights)
    del files["vocab.txt"]
    with pytest.raises(ModelFileError, match=r"vocab\.txt"):
        convert(files, tmp_path / "model.gguf")


@pytest.fixture
def embedder(tmp_path: Path, weights: dict[str, np.ndarray], offer: Offer) -> Card:
    """A model that is converted, in the wheel that pip brings."""
    files = write(tmp_path / "source", weights)
    contents = {f"owl_weights/{name}": path.read_bytes() for name, path in files.items()}
    offer(contents)
    source = PackageSource(
        distribution="owl-weights",
        version="1.0",
        wheel_size=4000,
        members=tuple(member(content, path) for path, content in contents.items()),
        convert="bert-gguf",
        file="owl.F16.gguf",
        file_size=1000,
    )
    return Card("owl-embed", (source,))


def test_it_is_fetched_and_converted_once(embedder: Card, pip: FakePip) -> None:
    path = fetch(embedder)
    assert check_gguf(path).architecture == "bert"
    assert fetch(embedder) == path
    assert pip.runs == 1
    assert left_in_cache("owl-embed") == ["owl.F16.gguf", "owl.F16.gguf.verified.json"]


def test_an_altered_result_is_made_again_and_a_touched_one_kept(embedder: Card, pip: FakePip) -> None:
    path = fetch(embedder)
    good = path.read_bytes()
    os.utime(path, ns=(1, 1))
    fetch(embedder)
    assert pip.runs == 1
    path.write_bytes(good[:-1] + b"\x77")
    assert fetch(embedder).read_bytes() == good
    assert pip.runs == 2
    path.with_name("owl.F16.gguf.verified.json").unlink()
    assert fetch(embedder).read_bytes() == good
    assert pip.runs == 3


def test_a_new_layout_is_written_anew(embedder: Card, pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(embedder)
    monkeypatch.setattr(fetching, "_LAYOUT", 2)
    fetch(embedder)
    assert pip.runs == 2


def test_a_failed_conversion_leaves_nothing(embedder: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(files: object, target: Path) -> None:
        target.write_bytes(b"GGUF half")
        raise ModelFileError("no such model")

    with monkeypatch.context() as patch:
        patch.setattr(bert_gguf, "convert", fail)
        with pytest.raises(ModelFileError):
            fetch(embedder)
    assert left_in_cache("owl-embed") == []
    check_gguf(fetch(embedder))


def test_a_missing_library_is_named_before_the_download(
    embedder: Card, pip: FakePip, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingDependency, match=r'gguf: pip install "local-llms\[llama-cpp\]"'):
        fetch(embedder)
    assert pip.runs == 0


def test_a_broken_library_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ModuleNotFoundError("No module named 'inner'", name="inner")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="inner"):
        bert_gguf.require_libraries()
