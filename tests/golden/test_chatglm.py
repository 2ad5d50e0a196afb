"""chatglm.cpp's golden tensors, through the code that loads a user's folder.

The weights are written into small checkpoints in the original layouts. Hidden states after the final norm are what is
compared: the output matrix is the identity, so that logits are hidden states. See the data's README.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from local_llms.backends import transformers
from local_llms.backends.base import Adapter, Backend, Chunk, LoadOptions
from tests.chatglm_files import ICE_MARKERS, first_config, write_folder, write_pieces

pytest.importorskip("torch")
pytest.importorskip("sentencepiece")

VOCABULARY, HIDDEN, HEADS, SIZE, VIRTUAL = 5, 32, 8, 4, 5
ROWS = 600
"""Of the embedding and of the output matrix: more than the tokenizer has tokens."""
SMALL = LoadOptions(context_length=64, cache_tokens=128, max_parallel=2, device="cpu", dtype="float32", threads=1)

Arrays = dict[str, NDArray[np.float32]]
Steps = list[tuple[list[int], NDArray[np.float32]]]


class Reader:
    """A file of little-endian tensors, one after the other."""

    def __init__(self, path: Path) -> None:
        self.data, self.place = path.read_bytes(), 0

    def take(self, *shape: int, kind: str = "<f4") -> NDArray[np.float32]:
        found = np.frombuffer(self.data, kind, int(np.prod(shape)), self.place).reshape(shape)
        self.place += found.nbytes
        return found

    def steps(self) -> Steps:
        found = [(self.take(count, kind="<i4").tolist(), self.take(count, HIDDEN)) for count in (3, 1, 1)]
        assert self.place == len(self.data)
        return found


def padded(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    whole = np.zeros((ROWS, HIDDEN), np.float32)
    whole[: len(rows)] = rows
    return whole


def identity() -> NDArray[np.float32]:
    return np.eye(ROWS, HIDDEN, dtype=np.float32)


def norm_of(reader: Reader, name: str) -> Arrays:
    return {f"{name}.weight": reader.take(HIDDEN), f"{name}.bias": reader.take(HIDDEN)}


def linear_of(reader: Reader, name: str, outputs: int, inputs: int) -> Arrays:
    return {f"{name}.weight": reader.take(outputs, inputs), f"{name}.bias": reader.take(outputs)}


def write_first(reader: Reader, folder: Path, *, parts: int) -> Path:
    """ChatGLM-6B's layout."""
    layer = "transformer.layers.0"
    tensors = {
        "transformer.word_embeddings.weight": padded(reader.take(VOCABULARY, HIDDEN)),
        **norm_of(reader, f"{layer}.input_layernorm"),
        **linear_of(reader, f"{layer}.attention.query_key_value", 3 * HIDDEN, HIDDEN),
        **linear_of(reader, f"{layer}.attention.dense", HIDDEN, HIDDEN),
        **norm_of(reader, f"{layer}.post_attention_layernorm"),
        **linear_of(reader, f"{layer}.mlp.dense_h_to_4h", 4 * HIDDEN, HIDDEN),
        **linear_of(reader, f"{layer}.mlp.dense_4h_to_h", HIDDEN, 4 * HIDDEN),
        **norm_of(reader, "transformer.final_layernorm"),
        f"{layer}.attention.rotary_emb.inv_freq": np.zeros(1, np.float32),
        "lm_head.weight": identity(),
    }
    config = first_config(ROWS, HIDDEN, 4 * HIDDEN, layers=1)
    write_folder(folder, config, tensors, parts=parts)
    write_pieces(folder / "ice_text.model", 500, control=ICE_MARKERS)
    return folder


def write_second(reader: Reader, folder: Path, *, parts: int) -> Path:
    """ChatGLM2's layout."""
    layer = "transformer.encoder.layers.0"
    tensors = {
        "transformer.embedding.word_embeddings.weight": padded(reader.take(VOCABULARY, HIDDEN)),
        f"{layer}.input_layernorm.weight": reader.take(HIDDEN),
        **linear_of(reader, f"{layer}.self_attention.query_key_value", HIDDEN + 2 * 2 * SIZE, HIDDEN),
        f"{layer}.self_attention.dense.weight": reader.take(HIDDEN, HIDDEN),
        f"{layer}.post_attention_layernorm.weight": reader.take(HIDDEN),
        f"{layer}.mlp.dense_h_to_4h.weight": np.concatenate((reader.take(48, HIDDEN), reader.take(48, HIDDEN))),
        f"{layer}.mlp.dense_4h_to_h.weight": reader.take(HIDDEN, 48),
        "transformer.encoder.final_layernorm.weight": reader.take(HIDDEN),
        "transformer.rotary_pos_emb.inv_freq": np.zeros(1, np.float32),
        "transformer.output_layer.weight": identity(),
    }
    config = {
        "_name_or_path": "THUDM/chatglm2-6b",
        "architectures": ["ChatGLMModel"],
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "apply_residual_connection_post_layernorm": False,
        "eos_token_id": 2,
        "ffn_hidden_size": 48,
        "hidden_size": HIDDEN,
        "kv_channels": SIZE,
        "layernorm_epsilon": 1e-5,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "num_attention_heads": HEADS,
        "num_layers": 1,
        "original_rope": True,
        "padded_vocab_size": ROWS,
        "post_layer_norm": True,
        "rmsnorm": True,
        "seq_length": 64,
    }
    write_folder(folder, config, tensors, parts=parts)
    write_pieces(folder / "tokenizer.model", 450)
    return folder


def write_prefix(prefix: NDArray[np.float16], folder: Path) -> Path:
    """A P-tuning checkpoint: a row per virtual token, its key and then its value of each head."""
    rows = prefix.transpose(2, 0, 1, 3).reshape(VIRTUAL, -1)
    config = {"pre_seq_len": VIRTUAL, "prefix_projection": False, "num_layers": 1}
    return write_folder(folder, config, {"transformer.prefix_encoder.embedding.weight": rows})


def check(backend: Backend, steps: Steps, adapter: Adapter | None = None) -> None:
    for chunks in ([[0, 1, 2]], [[0], [1], [2]], [[0, 1], [2]]):
        start = 0
        for part in chunks[:-1]:
            backend.decode([Chunk(0, start, part, "none")], adapter)
            start += len(part)
        (ids, prefill), *singles = steps
        assert ids == [0, 1, 2]
        whole = chunks == [[0, 1, 2]]
        rows = backend.decode([Chunk(0, start, chunks[-1], "all" if whole else "last")], adapter)[:, :HIDDEN]
        np.testing.assert_allclose(rows, prefill if whole else prefill[2:], rtol=0, atol=1e-5)
        for place, (token, expected) in enumerate(singles, 3):
            row = backend.decode([Chunk(0, place, token)], adapter)[:, :HIDDEN]
            np.testing.assert_allclose(row, expected, rtol=0, atol=1e-5)
        backend.free(0)


@pytest.fixture
def folder(data: Path) -> Path:
    return data / "models" / "chatglm-golden"


@pytest.fixture(params=[1, 2], ids=["safetensors", "pickles"])
def parts(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def opened(path: Path) -> Iterator[Backend]:
    backend = transformers.load(path, SMALL)
    yield backend
    backend.close()


def test_chatglm_6b(folder: Path, tmp_path: Path, parts: int) -> None:
    reader = Reader(folder / "glm_model.data")
    for backend in opened(write_first(reader, tmp_path / "chatglm-6b", parts=parts)):
        assert backend.info.template == "chatglm"
        check(backend, reader.steps())


def test_chatglm2(folder: Path, tmp_path: Path, parts: int) -> None:
    reader = Reader(folder / "glm2_model.data")
    for backend in opened(write_second(reader, tmp_path / "model", parts=parts)):
        assert backend.info.template == "chatglm2"
        check(backend, reader.steps())


def test_p_tuning(folder: Path, tmp_path: Path) -> None:
    reader = Reader(folder / "glm_ptuning_v2_model.data")
    prefix = reader.take(2, HEADS, VIRTUAL, SIZE, kind="<f2")
    path = write_prefix(prefix, tmp_path / "ptuning")
    base = write_first(reader, tmp_path / "chatglm-6b", parts=1)
    for backend in opened(base):
        backend.open_adapter(path)
        steps = reader.steps()
        check(backend, steps, Adapter(path))
        with pytest.raises(AssertionError):
            check(backend, steps)
