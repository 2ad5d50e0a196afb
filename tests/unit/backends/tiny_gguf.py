"""Writes small GGUF files with random weights: one of each kind of model that the backend treats apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

WIDTH, LAYERS, HEADS, CONTEXT = 64, 2, 2, 256
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
SPACE = "\u2581"

MERGED_MARKER = "</s>"
"""A control token that the ordinary pieces of this vocabulary merge into."""
TYPED_MARKER = "<tool>"
"""A user-defined token, which llama.cpp reads in any text."""


def spm_vocabulary(blanks: bool) -> list[tuple[str, float, int]]:
    """Text, score and type of the tokens of a SentencePiece vocabulary.

    Like Gemma's it calls runs of blanks user-defined.
    """
    tokens = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), (MERGED_MARKER, 0.0, CONTROL)]
    tokens += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    tokens += [(TYPED_MARKER, 0.0, USER_DEFINED)]
    if blanks:
        tokens += [("\n\n", 0.0, USER_DEFINED), ("  ", 0.0, USER_DEFINED)]
    pieces = ["</", "s>", "on", "ce", "th", "he", "the", SPACE + "t", SPACE + "the", "Once", "On"]
    tokens += [(piece, -float(rank), NORMAL) for rank, piece in enumerate(pieces)]
    letters = [SPACE, *map(chr, range(33, 127)), "é", "日"]
    return tokens + [(letter, -100.0 - rank, NORMAL) for rank, letter in enumerate(letters)]


def wordpiece_vocabulary() -> list[tuple[str, float, int]]:
    """Text, score and type of the tokens of a BERT vocabulary as GGUF has them: U+2581 begins a word."""
    tokens = [("[PAD]", 0.0, CONTROL), ("[UNK]", 0.0, UNKNOWN), ("[CLS]", 0.0, CONTROL), ("[SEP]", 0.0, CONTROL)]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?[]<>|"
    words = [*letters, "hello", "world", "cat", "dog"]
    tokens += [(SPACE + word, 0.0, NORMAL) for word in words]
    return tokens + [(letter, 0.0, NORMAL) for letter in letters]


def write_llama(path: Path, markers: tuple[str, ...] = (), name: str = "tiny llama") -> Path:
    """A transformer with a KV cache, and a vocabulary without the space in front, with these control tokens behind."""
    tokens = [*spm_vocabulary(blanks=True), *((marker, 0.0, CONTROL) for marker in markers)]
    writer = _writer(path, "llama", tokens, "llama", name)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    shapes: dict[str, tuple[int, ...]] = {
        "output.weight": (len(tokens), WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    for block in (f"blk.{number}." for number in range(LAYERS)):
        shapes |= {f"{block}{name}_norm.weight": (WIDTH,) for name in ("attn", "ffn")}
        shapes |= {f"{block}attn_{name}.weight": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        shapes |= {f"{block}ffn_{name}.weight": (2 * WIDTH, WIDTH) for name in ("gate", "up")}
        shapes |= {f"{block}ffn_down.weight": (WIDTH, 2 * WIDTH)}
    return _finish(writer, path, len(tokens), shapes)


def write_chatglm(path: Path, markers: tuple[str, ...], template: str | None = None) -> Path:
    """A ChatGLM with these control tokens, such as "[gMASK]", behind its SentencePiece vocabulary."""
    tokens = [*spm_vocabulary(blanks=False), *((marker, 0.0, CONTROL) for marker in markers)]
    writer = _writer(path, "chatglm", tokens, "llama")
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS // 2)
    together = WIDTH + 2 * WIDTH // HEADS
    shapes: dict[str, tuple[int, ...]] = {"output.weight": (len(tokens), WIDTH), "output_norm.weight": (WIDTH,)}
    for block in (f"blk.{number}." for number in range(LAYERS)):
        shapes |= {f"{block}{name}_norm.weight": (WIDTH,) for name in ("attn", "ffn")}
        shapes |= {f"{block}attn_qkv.weight": (together, WIDTH), f"{block}attn_qkv.bias": (together,)}
        shapes |= {f"{block}attn_output.weight": (WIDTH, WIDTH)}
        shapes |= {f"{block}ffn_up.weight": (4 * WIDTH, WIDTH), f"{block}ffn_down.weight": (WIDTH, 2 * WIDTH)}
    return _finish(writer, path, len(tokens), shapes)


def write_mamba(path: Path) -> Path:
    """A recurrent model, and a vocabulary that puts a space before every text."""
    tokens = spm_vocabulary(blanks=False)
    inner, state, rank, kernel = 2 * WIDTH, 16, 4, 4
    writer = _writer(path, "mamba", tokens, "llama")
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)
    writer.add_head_count(0)
    writer.add_feed_forward_length(0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    shapes: dict[str, tuple[int, ...]] = {"output_norm.weight": (WIDTH,)}
    for block in (f"blk.{number}." for number in range(LAYERS)):
        shapes |= {
            f"{block}attn_norm.weight": (WIDTH,),
            f"{block}ssm_in.weight": (2 * inner, WIDTH),
            f"{block}ssm_conv1d.weight": (inner, kernel),
            f"{block}ssm_conv1d.bias": (inner,),
            f"{block}ssm_x.weight": (rank + 2 * state, inner),
            f"{block}ssm_dt.weight": (inner, rank),
            f"{block}ssm_dt.bias": (inner,),
            f"{block}ssm_a": (inner, state),
            f"{block}ssm_d": (inner,),
            f"{block}ssm_out.weight": (WIDTH, inner),
        }
    return _finish(writer, path, len(tokens), shapes)


def write_bert(path: Path) -> Path:
    """An embedding model."""
    writer = _writer(path, "bert", wordpiece_vocabulary(), "bert")
    writer.add_token_type_count(2)
    writer.add_head_count(HEADS)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_eos_token_id(3)
    shapes: dict[str, tuple[int, ...]] = {
        "token_types.weight": (2, WIDTH),
        "position_embd.weight": (CONTEXT, WIDTH),
        "token_embd_norm.weight": (WIDTH,),
        "token_embd_norm.bias": (WIDTH,),
    }
    for block in (f"blk.{number}." for number in range(LAYERS)):
        shapes |= {f"{block}attn_{name}.weight": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        shapes |= {f"{block}ffn_up.weight": (2 * WIDTH, WIDTH), f"{block}ffn_down.weight": (WIDTH, 2 * WIDTH)}
        shapes |= {f"{block}{name}.weight": (WIDTH,) for name in ("attn_output_norm", "layer_output_norm")}
        biases = ("attn_q", "attn_k", "attn_v", "attn_output", "attn_output_norm", "ffn_down", "layer_output_norm")
        shapes |= {f"{block}{name}.bias": (WIDTH,) for name in biases}
        shapes |= {f"{block}ffn_up.bias": (2 * WIDTH,)}
    return _finish(writer, path, len(wordpiece_vocabulary()), shapes)


def _writer(
    path: Path, architecture: str, tokens: list[tuple[str, float, int]], tokenizer: str, name: str = ""
) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(name or f"tiny {architecture}")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_tokenizer_model(tokenizer)
    writer.add_token_list([text for text, _, _ in tokens])
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([kind for _, _, kind in tokens])
    if tokenizer == "llama":
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
    return writer


def _finish(writer: gguf.GGUFWriter, path: Path, vocabulary: int, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    random = np.random.default_rng(7)
    for name, shape in {"token_embd.weight": (vocabulary, WIDTH), **shapes}.items():
        if "norm.weight" in name or name.endswith("ssm_d"):
            data = np.ones(shape)
        elif name.endswith("ssm_a"):
            data = -np.exp(random.normal(0, 0.5, shape))
        else:
            data = random.normal(0, 0.2, shape)
        writer.add_tensor(name, data.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
