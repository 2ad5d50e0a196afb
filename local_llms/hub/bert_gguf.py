"""Writes a BERT embedding model, as Sentence Transformers publishes it, as one GGUF file for llama.cpp.

The layout is that of llama.cpp's own converter (conversion/bert.py): tensor names from the ``gguf`` package's map,
matrices as float16, everything else as float32, WordPiece pieces that begin a word with U+2581 in front and others
without their ``##``. The pooler is left out: a sentence's vector is the mean over its tokens. The same input gives the
same bytes. Neither torch nor transformers is needed.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from local_llms.errors import MissingDependency, ModelFileError
from local_llms.hub.gguf_check import check_gguf

CONTROL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SKIPPED = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")
_AS_FLOAT32 = ("embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight")


def require_libraries() -> None:
    """Raise MissingDependency unless the libraries that ``convert`` uses are installed."""
    for library in ("gguf", "safetensors"):
        try:
            importlib.import_module(library)
        except ModuleNotFoundError as error:
            if error.name != library:
                raise
            raise MissingDependency(library, extra="llama-cpp", purpose="Preparing an embedding model") from None


def convert(files: Mapping[str, Path], target: Path) -> None:
    """Write ``target`` from the files of a model, by name: config.json, model.safetensors and vocab.txt.

    With ``sentence_bert_config.json`` the file's context is its ``max_seq_length``, where Sentence Transformers cuts
    texts: the position table is cut there too. Raises ModelFileError where the files are not such a model,
    MissingDependency where a library is missing.
    """
    require_libraries()
    import gguf

    config = _read_config(files)
    tokens = files["vocab.txt"].read_text("utf-8").split("\n")
    if tokens[-1] == "":
        tokens.pop()
    lacking = [token for token in CONTROL_TOKENS if token not in tokens]
    if lacking or len(tokens) != config["vocab_size"]:
        raise _bad(files, f"vocab.txt has {len(tokens)} tokens for {config['vocab_size']} and lacks {lacking}")
    writer = gguf.GGUFWriter(target, "bert")
    writer.add_type("model")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(config["context_length"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_tokenizer_model("bert")
    writer.add_token_list([_piece(token) for token in tokens])
    writer.add_token_types([_token_type(token, gguf.TokenType) for token in tokens])
    writer.add_pad_token_id(tokens.index("[PAD]"))
    writer.add_unk_token_id(tokens.index("[UNK]"))
    writer.add_bos_token_id(tokens.index("[CLS]"))
    writer.add_sep_token_id(tokens.index("[SEP]"))
    writer.add_mask_token_id(tokens.index("[MASK]"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, tensor in _tensors(files, config["context_length"]):
        mapped = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if mapped is None:
            raise _bad(files, f"it has the tensor {name}, which a BERT model has not")
        writer.add_tensor(mapped, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check_gguf(target)


def _read_config(files: Mapping[str, Path]) -> dict[str, Any]:
    missing = [name for name in ("config.json", "model.safetensors", "vocab.txt") if name not in files]
    if missing:
        raise ModelFileError(f"An embedding model is written from {missing[0]} too; name it among the members.")
    config: dict[str, Any] = json.loads(files["config.json"].read_bytes())
    expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise _bad(files, f"{key} is {config[key]!r}, and only {value!r} is understood")
    config["context_length"] = config["max_position_embeddings"]
    if "sentence_bert_config.json" in files:
        limits = json.loads(files["sentence_bert_config.json"].read_bytes())
        config["context_length"] = min(limits["max_seq_length"], config["context_length"])
    return config


def _bad(files: Mapping[str, Path], what: str) -> ModelFileError:
    return ModelFileError(f"{files['config.json']} belongs to a model that cannot be converted: {what}.")


def _piece(token: str) -> str:
    if token in CONTROL_TOKENS:
        return token
    return token[2:] if token.startswith("##") else "\u2581" + token


def _token_type(token: str, types: Any) -> int:
    return int(types.CONTROL if token in CONTROL_TOKENS else types.NORMAL)


def _tensors(files: Mapping[str, Path], positions: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """The tensors that the file gets, by name."""
    from safetensors import safe_open

    with safe_open(files["model.safetensors"], framework="numpy") as stored:
        for name in sorted(stored.keys()):
            plain = name.removeprefix("bert.")
            if plain in _SKIPPED:
                continue
            tensor = stored.get_tensor(name)
            if plain == "embeddings.position_embeddings.weight":
                tensor = tensor[:positions]
            small = tensor.ndim < 2 or plain in _AS_FLOAT32
            yield plain, np.ascontiguousarray(tensor, np.float32 if small else np.float16)
