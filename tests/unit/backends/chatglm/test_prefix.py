"""P-tuning prefixes as adapters of ChatGLM-6B: with and without projection, per request, and those that do not fit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sentencepiece")

from safetensors.numpy import load_file

from local_llms import load_model
from local_llms.backends import transformers
from local_llms.backends.base import Adapter, Backend, Chunk, LoadOptions
from local_llms.errors import AdapterError, LocalLLMError, UnsupportedFeature
from tests.chatglm_files import random_prefix, write_folder

OPTIONS = LoadOptions(context_length=64, cache_tokens=256, max_parallel=4, device="cpu", dtype="float32", threads=1)
LAYERS, HEADS, SIZE = 3, 8, 4
PROMPT = [30, 31, 32, 33, 1, 2]
NAME = "transformer.prefix_encoder."


@pytest.fixture
def backend(chatglm_folder: Path) -> Iterator[Backend]:
    """The model, without an adapter yet."""
    backend = transformers.load(chatglm_folder, OPTIONS)
    yield backend
    backend.close()


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return random_prefix(tmp_path / "prefix", layers=LAYERS, heads=HEADS, size=SIZE)


def rows_with(backend: Backend, path: Path | None, ids: list[int] = PROMPT) -> np.ndarray:
    adapter = None if path is None else Adapter(path)
    rows = backend.decode([Chunk(5, 0, ids, "all")], adapter).copy()
    backend.free(5)
    return rows


def test_a_projection_is_carried_out(backend: Backend, tmp_path: Path) -> None:
    projected = random_prefix(tmp_path / "projected", layers=LAYERS, heads=HEADS, size=SIZE, projected=16)
    found = {name.removeprefix(NAME): value for name, value in load_file(projected / "model.safetensors").items()}
    hidden = np.tanh(found["embedding.weight"] @ found["trans.0.weight"].T + found["trans.0.bias"])
    rows = hidden @ found["trans.2.weight"].T + found["trans.2.bias"]
    plain = write_folder(tmp_path / "plain", {}, {f"{NAME}embedding.weight": rows.astype(np.float32)})
    for path in (projected, plain):
        backend.open_adapter(path)
    np.testing.assert_allclose(rows_with(backend, projected), rows_with(backend, plain), atol=1e-5)
    assert np.abs(rows_with(backend, projected) - rows_with(backend, None)).max() > 0.1


def test_pickles_in_half_precision(backend: Backend, prefix: Path, tmp_path: Path) -> None:
    """As the original's trainer leaves them."""
    import torch

    rows = load_file(prefix / "model.safetensors")[f"{NAME}embedding.weight"]
    folder = tmp_path / "checkpoint-3000"
    folder.mkdir()
    torch.save({f"{NAME}embedding.weight": torch.tensor(rows).half()}, folder / "pytorch_model.bin")
    for path in (prefix, folder):
        backend.open_adapter(path)
    np.testing.assert_allclose(rows_with(backend, folder), rows_with(backend, prefix), atol=0.05)


def test_a_prefix_among_the_weights_of_the_whole_model(
    backend: Backend, prefix: Path, chatglm_folder: Path, tmp_path: Path
) -> None:
    """The folder is a model, which is loaded without its prefix, and an adapter of it."""
    both = {**load_file(chatglm_folder / "model.safetensors"), **load_file(prefix / "model.safetensors")}
    whole = Path(shutil.copytree(chatglm_folder, tmp_path / "whole"))
    from safetensors.numpy import save_file

    save_file(both, whole / "model.safetensors", metadata={"format": "pt"})
    other = transformers.load(whole, OPTIONS)
    other.open_adapter(whole)
    backend.open_adapter(prefix)
    np.testing.assert_array_equal(rows_with(other, None), rows_with(backend, None))
    np.testing.assert_array_equal(rows_with(other, whole), rows_with(backend, prefix))
    other.close()


def test_requests_with_and_without_share_the_model(chatglm_folder: Path, prefix: Path, tmp_path: Path) -> None:
    """Through the door: eight requests at once, each answered as if it were alone; nothing is loaded again."""
    other = random_prefix(tmp_path / "other", layers=LAYERS, heads=HEADS, size=SIZE, seed=9)
    kinds = (None, str(prefix), str(other))
    options = {"max_tokens": 12, "temperature": 0}
    loading = {"device": "cpu", "dtype": "float32", "threads": 1, "context_length": 64, "max_parallel": 8}
    with load_model(chatglm_folder, family="glm", **loading) as model:
        assert model.info.template == "chatglm"

        def ask(kind: str | None, **given):
            return model.submit("Lily had a dog", **options, **({} if kind is None else {"adapter": kind}), **given)

        alone = {kind: ask(kind).result().token_ids for kind in kinds}
        assert len(set(alone.values())) == 3
        streams = [(kind, ask(kind)) for kind in (*kinds, *kinds, *kinds[:2])]
        for kind, stream in streams:
            assert stream.result().token_ids == alone[kind]
        with pytest.raises(LocalLLMError, match="no strength"):
            ask(str(prefix), adapter_scale=0.5).result()
        assert ask(str(prefix)).result().token_ids == alone[str(prefix)]


def test_a_scale_is_refused(backend: Backend, prefix: Path) -> None:
    backend.open_adapter(prefix)
    expected = rows_with(backend, prefix)
    with pytest.raises(UnsupportedFeature, match="no strength"):
        backend.decode([Chunk(0, 0, PROMPT)], Adapter(prefix, 0.5))
    np.testing.assert_array_equal(rows_with(backend, prefix), expected)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"embedding.weight": np.ones((6, LAYERS * 2 * HEADS * SIZE + 1))}, "another model"),
        ({"embedding.weight": np.ones((6, 2 * HEADS * SIZE))}, "another model"),
        ({"embedding.weight": np.ones(LAYERS * 2 * HEADS * SIZE)}, "another model"),
        ({"embedding.weight": np.full((6, LAYERS * 2 * HEADS * SIZE), np.nan)}, "damaged"),
        ({"embedding.weight": np.ones((6, 16)), "trans.0.weight": np.ones((8, 16))}, "has the weights"),
        ({"trans.0.weight": np.ones((8, 16))}, "has the weights"),
        (
            {
                "embedding.weight": np.ones((6, 16)),
                "trans.0.weight": np.ones((8, 15)),
                "trans.0.bias": np.ones(8),
                "trans.2.weight": np.ones((LAYERS * 2 * HEADS * SIZE, 8)),
                "trans.2.bias": np.ones(LAYERS * 2 * HEADS * SIZE),
            },
            "do not fit each other",
        ),
    ],
)
def test_prefixes_that_do_not_fit(backend: Backend, tmp_path: Path, tensors: dict[str, np.ndarray], says: str) -> None:
    base = rows_with(backend, None)
    arrays = {NAME + name: value.astype(np.float32) for name, value in tensors.items()}
    path = write_folder(tmp_path / "wrong", {}, arrays)
    with pytest.raises(AdapterError, match=says):
        backend.open_adapter(path)
    np.testing.assert_array_equal(rows_with(backend, None), base)


def test_a_folder_without_a_prefix_is_none(backend: Backend, chatglm_folder: Path) -> None:
    with pytest.raises(AdapterError):
        backend.open_adapter(chatglm_folder)
