"""Folders in the original layouts of ChatGLM, written from small weights, for tests.

The real vocabularies are not at hand; those written here are trained on a few sentences, or read off another tokenizer.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

TEXT = """Once upon a time, there was a little girl named Lily. She loved to play with her dog in the park, every day.
One day she found a big red ball. "What a nice ball!" said Lily, and she ran home to show it to her mom and dad.
你好，我是人工智能助手。很高兴见到你，欢迎问我任何问题。晚上睡不着应该怎么办？
def main():
    print('hello world')  # greeting, 1 + 1 = 2
"""

ICE_MARKERS = ("[gMASK]", "<sop>", "<eop>", "[MASK]", "[sMASK]")
WHITESPACE = ("<n>", "<|tab|>", *(f"<|blank_{length}|>" for length in range(2, 81)))


def write_pieces(
    path: Path, size: int, *, control: tuple[str, ...] = (), user: tuple[str, ...] = (), nfkc: bool = False
) -> None:
    """Train a SentencePiece model with byte fallback. Control pieces get the ids from 1 on."""
    import sentencepiece

    written = io.BytesIO()
    base = {"unk_id": 0, "bos_id": -1, "eos_id": -1} if control else {"unk_id": 0, "bos_id": 1, "eos_id": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines() * 4),
        model_writer=written,
        vocab_size=size,
        model_type="unigram" if control else "bpe",
        byte_fallback=True,
        control_symbols=list(control),
        user_defined_symbols=list(user),
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc" if nfkc else "identity",
        remove_extra_whitespaces=nfkc,
        minloglevel=2,
        **base,
    )
    path.write_bytes(written.getvalue())


def write_ranks(path: Path, ranks: Mapping[bytes, int]) -> None:
    """A list of ranks as GLM-4's ``tokenizer.model`` is."""
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks.items())
    path.write_bytes(b"".join(lines))


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], *, parts: int = 1) -> Path:
    """config.json and weights: as safetensors in one file, or as PyTorch files in so many parts."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "chatglm", "auto_map": {"AutoModel": "x.Y"}, **config})
    )
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    if parts == 1:
        save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    import torch

    table = {}
    for part in range(parts):
        file = f"pytorch_model-{part + 1:05}-of-{parts:05}.bin"
        names = list(arrays)[part::parts]
        torch.save({name: torch.tensor(arrays[name]) for name in names}, folder / file)
        table.update(dict.fromkeys(names, file))
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return folder


def random_first(folder: Path, *, layers: int = 2, seed: int = 1) -> Path:
    """A small ChatGLM-6B with random weights."""
    random = np.random.default_rng(seed)
    hidden, inner, rows = 32, 64, 600

    def matrix(outputs: int, inputs: int) -> np.ndarray:
        return (random.standard_normal((outputs, inputs)) / np.sqrt(inputs)).astype(np.float32)

    def pair(name: str, outputs: int, inputs: int) -> dict[str, np.ndarray]:
        return {f"{name}.weight": matrix(outputs, inputs), f"{name}.bias": matrix(1, outputs)[0]}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {f"{name}.weight": 1 + matrix(1, hidden)[0], f"{name}.bias": matrix(1, hidden)[0]}

    tensors = {"transformer.word_embeddings.weight": matrix(rows, hidden), "lm_head.weight": matrix(rows, hidden)}
    for number in range(layers):
        layer = f"transformer.layers.{number}"
        tensors |= norm(f"{layer}.input_layernorm") | norm(f"{layer}.post_attention_layernorm")
        # Sharper attention than at random, so that a token's place matters.
        tensors |= {
            name: 3 * one for name, one in pair(f"{layer}.attention.query_key_value", 3 * hidden, hidden).items()
        }
        tensors |= pair(f"{layer}.attention.dense", hidden, hidden)
        tensors |= pair(f"{layer}.mlp.dense_h_to_4h", inner, hidden) | pair(f"{layer}.mlp.dense_4h_to_h", hidden, inner)
    tensors |= norm("transformer.final_layernorm")
    write_folder(folder, first_config(rows, hidden, inner, layers), tensors)
    write_pieces(folder / "ice_text.model", 500, control=ICE_MARKERS, user=WHITESPACE)
    return folder


def first_config(rows: int, hidden: int, inner: int, layers: int) -> dict[str, Any]:
    """config.json of ChatGLM-6B, with the ids that ``ICE_MARKERS`` get."""
    return {
        "architectures": ["ChatGLMModel"],
        "bos_token_id": 2,
        "eos_token_id": 3,
        "gmask_token_id": 1,
        "mask_token_id": 4,
        "hidden_size": hidden,
        "inner_hidden_size": inner,
        "layernorm_epsilon": 1e-5,
        "max_sequence_length": 256,
        "num_attention_heads": 8,
        "num_layers": layers,
        "position_encoding_2d": True,
        "vocab_size": rows,
    }


def random_prefix(folder: Path, *, layers: int, heads: int, size: int, projected: int = 0, seed: int = 2) -> Path:
    """A P-tuning checkpoint of 6 virtual tokens; ``projected``: width of the embedding before a projection."""
    random = np.random.default_rng(seed)
    width, name = layers * 2 * heads * size, "transformer.prefix_encoder"
    tensors = {f"{name}.embedding.weight": 4 * random.standard_normal((6, projected or width))}
    if projected:
        tensors |= {
            f"{name}.trans.0.weight": random.standard_normal((32, projected)) / 4,
            f"{name}.trans.0.bias": random.standard_normal(32) / 4,
            f"{name}.trans.2.weight": random.standard_normal((width, 32)),
            f"{name}.trans.2.bias": random.standard_normal(width) / 4,
        }
    config = {"pre_seq_len": 6, "prefix_projection": bool(projected)}
    return write_folder(folder, config, {key: value.astype(np.float32) for key, value in tensors.items()})
