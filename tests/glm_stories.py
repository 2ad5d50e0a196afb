"""The glm-stories model, whose layout is the library's, in the original layouts of ChatGLM2, ChatGLM3 and GLM-4."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from tests.chatglm_files import write_folder, write_ranks

ROWS = 576
"""Of the embedding: the model's 512 tokens, special ones behind them, and some that nobody needs."""

_BYTE, _UNKNOWN, _NORMAL = 6, 2, 1


def write_original(source: Path, folder: Path, *, name: str) -> Path:
    """``name``: "chatglm2", "chatglm3" or "glm-4". GLM-4's ids are one less, since its ranks begin at 0."""
    from safetensors.numpy import load_file

    config = json.loads((source / "config.json").read_text())
    tokens = _tokens(source)
    shift = 1 if name == "glm-4" else 0
    stored = load_file(source / "model.safetensors")
    rows = {"model.embed_tokens.weight": "embedding.word_embeddings.weight", "lm_head.weight": "output_layer.weight"}
    tensors = {
        # Rows that pad are those of the end token: it is the first of equals.
        f"transformer.{theirs}": np.concatenate((stored[ours][shift:], stored[ours][:1].repeat(ROWS - 512 + shift, 0)))
        for ours, theirs in rows.items()
    }
    tensors["transformer.encoder.final_layernorm.weight"] = stored["model.norm.weight"]
    for number in range(config["num_hidden_layers"]):
        ours, theirs = f"model.layers.{number}.", f"transformer.encoder.layers.{number}."
        for kind in ("weight", "bias"):
            together = [stored[f"{ours}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            tensors[f"{theirs}self_attention.query_key_value.{kind}"] = np.concatenate(together)
        for one, other in {
            "self_attn.o_proj": "self_attention.dense",
            "mlp.gate_up_proj": "mlp.dense_h_to_4h",
            "mlp.down_proj": "mlp.dense_4h_to_h",
            "input_layernorm": "input_layernorm",
            "post_attention_layernorm": "post_attention_layernorm",
        }.items():
            tensors[f"{theirs}{other}.weight"] = stored[f"{ours}{one}.weight"]
    write_folder(
        folder,
        {
            "_name_or_path": f"THUDM/{name}-6b",
            "architectures": ["ChatGLMModel"],
            "add_qkv_bias": True,
            "ffn_hidden_size": config["intermediate_size"],
            "hidden_size": config["hidden_size"],
            "kv_channels": config["head_dim"],
            "layernorm_epsilon": config["rms_norm_eps"],
            "multi_query_attention": True,
            "multi_query_group_num": config["num_key_value_heads"],
            "num_attention_heads": config["num_attention_heads"],
            "num_layers": config["num_hidden_layers"],
            "padded_vocab_size": ROWS,
            "rope_ratio": config["rope_theta"] / 10_000,
            "seq_length": config["max_position_embeddings"],
        },
        tensors,
        parts=2 if name == "chatglm3" else 1,
    )
    if name == "glm-4":
        write_ranks(folder / "tokenizer.model", {token: number for number, token in enumerate(tokens)})
    else:
        (folder / "tokenizer.model").write_bytes(_pieces(tokens))
    return folder


def _tokens(source: Path) -> list[bytes]:
    """The bytes of the tokens from id 1 on; 0 is the end token."""
    from local_llms.backends.transformers.pieces import byte_alphabet, byte_level

    table = json.loads((source / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    by_id = {number: text for text, number in table.items()}
    alphabet = byte_alphabet()
    return [byte_level(by_id[number], alphabet) for number in range(1, len(by_id))]


def _pieces(tokens: list[bytes]) -> bytes:
    """The same vocabulary as a SentencePiece model: bytes that no piece covers fall back to themselves.

    Format: google/sentencepiece, src/sentencepiece_model.proto.
    """
    model = _field(1, _piece("<unk>", 0.0, _UNKNOWN))
    for rank, token in enumerate(tokens):
        text = f"<0x{token[0]:02X}>" if len(token) == 1 else token.decode().replace(" ", "\u2581")
        model += _field(1, _piece(text, -float(rank), _BYTE if len(token) == 1 else _NORMAL))
    trainer = _number(3, 2) + _number(35, 1) + _number(40, 0) + b"".join(_number(key, -1) for key in (41, 42, 43))
    # No space in front of a text: there is no piece for a space alone, since its byte has one.
    normalizer = _field(1, b"identity") + _number(3, 0) + _number(4, 0) + _number(5, 1)
    return model + _field(2, trainer) + _field(3, normalizer)


def _piece(text: str, score: float, kind: int) -> bytes:
    return _field(1, text.encode()) + bytes([2 << 3 | 5]) + struct.pack("<f", score) + _number(3, kind)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value % (1 << 64))


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])
