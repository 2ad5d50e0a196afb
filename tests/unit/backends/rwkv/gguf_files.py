"""Writes RWKV-6 and RWKV-7 as GGUF, as llama.cpp's converter names and arranges them (convert_hf_to_gguf.py)."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from tests.unit.backends.rwkv.checkpoints import LAYERS, WIDTH, Tensors

CONTEXT = 256
VOCABULARY = 257
"""The end of a text, and each byte."""

_OUTSIDE = {"emb": "token_embd", "blocks.0.ln0": "token_embd_norm", "ln_out": "output_norm", "head": "output"}
_NORMS = {"ln1": "attn_norm", "ln2": "attn_norm_2", "att.ln_x": "time_mix_ln"}
_MATRICES = {f"att.{name}": f"time_mix_{name}" for name in ("key", "value", "receptance", "output", "gate")} | {
    f"ffn.{name}": f"channel_mix_{name}" for name in ("key", "value", "receptance")
}
_LOW_RANK = ("w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2")


def write(path: Path, version: str, tensors: Tensors) -> Path:
    """``tensors``: as ``checkpoints.make`` gives them, with ``VOCABULARY`` tokens."""
    architecture = f"rwkv{version}"
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"tiny {architecture}")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_feed_forward_length(96)
    writer.add_wkv_head_size(WIDTH // 2)
    writer.add_head_count(0)
    if version == "6":
        writer.add_rescale_every_n_layers(0)
        writer.add_time_mix_extra_dim(32)
        writer.add_time_decay_extra_dim(32)
    else:
        writer.add_decay_lora_rank(32)
        writer.add_iclr_lora_rank(32)
        writer.add_value_residual_mix_lora_rank(32)
        writer.add_gate_lora_rank(64)
    writer.add_tokenizer_model("rwkv")
    writer.add_token_list(["<s>", *(repr(bytes((byte,)))[2:-1] for byte in range(256))])
    writer.add_token_types([3] + [1] * 256)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_eot_token_id(0)
    for name, array in arranged(version, tensors).items():
        writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def arranged(version: str, tensors: Tensors) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        stem, _, kind = name.rpartition(".")
        if stem in _OUTSIDE:
            found[f"{_OUTSIDE[stem]}.{kind}"] = tensor.numpy()
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        own = {
            name.removeprefix(f"blocks.{layer}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"blocks.{layer}.") and ".ln0." not in name
        }
        for name, tensor in own.items():
            stem, _, kind = name.rpartition(".")
            if stem in _NORMS or stem in _MATRICES:
                found[f"{block}{(_NORMS | _MATRICES)[stem]}.{kind}"] = tensor.numpy()
        found |= {f"{block}{name}": array for name, array in (_seventh if version == "7" else _sixth)(own).items()}
    return found


def _seventh(own: Tensors) -> dict[str, np.ndarray]:
    found = {f"time_mix_{name}.weight": own[f"att.{name}"].T.numpy() for name in _LOW_RANK}
    for name in ("w0", "a0", "v0", "k_k", "k_a", "r_k"):
        found[f"time_mix_{name}.weight"] = own[f"att.{name}"].numpy().reshape(WIDTH)
    mixes = np.stack([own[f"att.x_{name}"].numpy().reshape(1, 1, WIDTH) for name in "rwkvag"])
    found["time_mix_lerp_fused.weight"] = mixes
    found["channel_mix_lerp_k.weight"] = own["ffn.x_k"].numpy().reshape(1, 1, WIDTH)
    return found


def _sixth(own: Tensors) -> dict[str, np.ndarray]:
    found = {f"time_mix_{name}.weight": own[f"att.time_{name}"].T.numpy() for name in ("decay_w1", "decay_w2")}
    found["time_mix_w1.weight"] = own["att.time_maa_w1"].T.numpy()
    found["time_mix_w2.weight"] = own["att.time_maa_w2"].transpose(1, 2).numpy()
    found["time_mix_decay.weight"] = own["att.time_decay"].numpy().reshape(WIDTH)
    found["time_mix_first.weight"] = own["att.time_faaaa"].numpy()
    found["time_mix_lerp_x.weight"] = own["att.time_maa_x"].numpy().reshape(1, 1, WIDTH)
    mixes = np.stack([own[f"att.time_maa_{name}"].numpy().reshape(1, 1, WIDTH) for name in "wkvrg"])
    found["time_mix_lerp_fused.weight"] = mixes
    for name in ("k", "r"):
        found[f"channel_mix_lerp_{name}.weight"] = own[f"ffn.time_maa_{name}"].numpy().reshape(1, 1, WIDTH)
    return found
