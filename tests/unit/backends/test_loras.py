"""LoRA adapters in llama.cpp: what is refused before llama.cpp sees it, and what is kept of a conversion."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import llama_cpp.llama_cpp as lib
import numpy as np
import pytest
from safetensors.numpy import save_file

from local_llms.backends import llama_cpp
from local_llms.backends.base import Adapter, Backend, Chunk, LoadOptions
from local_llms.backends.llama_cpp import loras
from local_llms.errors import AdapterError, OptionError, UnsupportedFeature
from local_llms.hub.gguf import read_header
from local_llms.paths import cache_dir
from tests.unit.backends.tiny_gguf import WIDTH

RANK = 4
TOKENS = [300, 301, 302]
Shapes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
FITTING: Shapes = {
    "blk.0.attn_q.weight": ((RANK, WIDTH), (WIDTH, RANK)),
    "blk.1.ffn_down.weight": ((RANK, 2 * WIDTH), (WIDTH, RANK)),
    "output.weight": ((RANK, WIDTH), (391, RANK)),
}


def write(
    path: Path, shapes: Shapes = FITTING, *, architecture: str = "llama", kind: str = "adapter", sort: str = "lora"
) -> gguf.GGUFWriter:
    """An adapter of random numbers; the writer is still open for more."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(kind)
    writer.add_string("adapter.type", sort)
    chance = np.random.default_rng(5)
    for name, both in shapes.items():
        for end, shape in zip(("lora_a", "lora_b"), both, strict=True):
            writer.add_tensor(f"{name}.{end}", chance.normal(0, 0.3, shape).astype(np.float32))
    return writer


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def backend(tiny_models: dict[str, Path]) -> Backend:
    return llama_cpp.load(tiny_models["llama"], LoadOptions(threads=1, max_parallel=2))


@pytest.fixture
def fitting(tmp_path: Path, tiny_models: dict[str, Path]) -> Path:
    rows = next(
        tensor.shape[1] for tensor in read_header(tiny_models["llama"]).tensors if tensor.name == "output.weight"
    )
    path = tmp_path / "lora.gguf"
    finish(write(path, {**FITTING, "output.weight": ((RANK, WIDTH), (rows, RANK))}))
    return path


def logits(backend: Backend, adapter: Adapter | None) -> np.ndarray:
    rows = backend.decode([Chunk(0, 0, TOKENS)], adapter).copy()
    backend.free(0)
    return rows


def test_alpha_by_the_rank_is_the_strength(backend, tmp_path: Path) -> None:
    found = []
    for alpha in (0.0, RANK, 2 * RANK):
        path = tmp_path / f"{alpha}.gguf"
        writer = write(path, {"blk.0.attn_v.weight": ((RANK, WIDTH), (WIDTH, RANK))})
        if alpha:
            writer.add_float32("adapter.lora.alpha", alpha)
        finish(writer)
        backend.open_adapter(path)
        found.append(logits(backend, Adapter(path)))
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    assert np.abs(found[1] - found[2]).max() > 0.01


MISFITS: dict[str, tuple[dict, str]] = {
    "another architecture": ({"architecture": "gptneox"}, "architecture 'gptneox'"),
    "a model": ({"kind": "model"}, "Give it as the model"),
    "a control vector": ({"sort": "control_vector"}, "control_vector"),
    "an unknown tensor": ({"shapes": {"blk.7.attn_q.weight": ((RANK, WIDTH), (WIDTH, RANK))}}, "does not have"),
    "a larger model": ({"shapes": {"blk.0.attn_q.weight": ((RANK, 128), (128, RANK))}}, "has .*another model"),
    "ranks": ({"shapes": {"blk.0.attn_q.weight": ((RANK, WIDTH), (WIDTH, RANK + 1))}}, "shapes"),
    "three dimensions": ({"shapes": {"blk.0.attn_q.weight": ((2, RANK, WIDTH), (2, WIDTH, RANK))}}, "shapes"),
    "nothing": ({"shapes": {}}, "changes nothing"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_one_that_does_not_fit_is_refused(backend, tmp_path: Path, case: str, monkeypatch) -> None:
    options, words = MISFITS[case]
    path = tmp_path / "lora.gguf"
    finish(write(path, **options))
    monkeypatch.setattr(lib, "llama_adapter_lora_init", lambda *_: pytest.fail("llama.cpp saw it"))
    with pytest.raises(AdapterError, match=words):
        backend.open_adapter(path)
    assert np.isfinite(logits(backend, None)).all()


def test_tensors_that_llama_cpp_would_leave_out_are_refused(backend, tmp_path: Path) -> None:
    for name in ("blk.0.attn_norm.weight", "blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_c"):
        path = tmp_path / f"{name}.gguf"
        writer = write(path, {"blk.1.attn_q.weight": ((RANK, WIDTH), (WIDTH, RANK))})
        writer.add_tensor(name, np.ones((RANK, WIDTH), np.float32))
        finish(writer)
        with pytest.raises(AdapterError, match=name.removesuffix(".lora_a").removesuffix(".lora_c")):
            backend.open_adapter(path)


def test_metadata_that_llama_cpp_asserts_on(backend, tmp_path: Path) -> None:
    """A number of another type would end the process."""
    adds = {
        "double": lambda writer: writer.add_float64("adapter.lora.alpha", 8.0),
        "whole": lambda writer: writer.add_uint32("adapter.lora.alpha", 8),
        "endless": lambda writer: writer.add_float32("adapter.lora.alpha", float("inf")),
        "negative": lambda writer: writer.add_float32("adapter.lora.alpha", -1.0),
        "alora": lambda writer: writer.add_array("adapter.alora.invocation_tokens", [1, 2]),
    }
    for name, add in adds.items():
        path = tmp_path / f"{name}.gguf"
        writer = write(path)
        add(writer)
        finish(writer)
        with pytest.raises(AdapterError):
            backend.open_adapter(path)


def test_damaged_files_are_refused_and_the_process_lives(backend, fitting: Path, tmp_path: Path) -> None:
    content = fitting.read_bytes()
    chance = random.Random(11)
    header = read_header(fitting).data_offset
    expected = logits(backend, None)
    refused = 0
    for number in range(200):
        damaged = bytearray(content)
        if number % 2:
            damaged = damaged[: chance.randrange(len(content) - 1)]
        else:
            for _ in range(3):
                damaged[chance.randrange(header)] = chance.randrange(256)
        path = tmp_path / f"damaged-{number}.gguf"
        path.write_bytes(damaged)
        try:
            backend.open_adapter(path)
        except AdapterError:
            refused += 1
        path.unlink()
    # A changed letter of a text that nobody reads does no harm.
    assert refused >= 190
    np.testing.assert_array_equal(logits(backend, None), expected)


def test_a_pointer_that_is_null_is_an_error(backend, fitting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    null = lib.llama_adapter_lora_init.restype()
    with monkeypatch.context() as patch:
        patch.setattr(lib, "llama_adapter_lora_init", lambda *_: null)
        with pytest.raises(AdapterError, match="could not load the adapter"):
            backend.open_adapter(fitting)
        with pytest.raises(ValueError, match="was not opened"):
            logits(backend, Adapter(fitting))
    backend.open_adapter(fitting)
    assert not np.allclose(logits(backend, Adapter(fitting)), logits(backend, None))


def test_an_embedding_model_takes_none(tiny_models: dict[str, Path], fitting: Path) -> None:
    with pytest.raises(UnsupportedFeature):
        llama_cpp.load(tiny_models["bert"], LoadOptions(threads=1)).open_adapter(fitting)


def test_what_cannot_be_given_when_loading(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="dtype"):
        llama_cpp.load(tiny_models["llama"], LoadOptions(dtype="float16"))
    with pytest.raises(AdapterError, match="transformers backend"):
        llama_cpp.load(tiny_models["llama"], LoadOptions(adapter=tmp_path))


def peft_folder(path: Path, modules: Mapping[str, tuple[int, int]], **config: object) -> Path:
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": 8, **config}))
    chance = np.random.default_rng(6)
    tensors = {}
    for module, (inner, outer) in modules.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = chance.normal(0, 0.3, (RANK, inner)).astype(np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = chance.normal(0, 0.3, (outer, RANK)).astype(np.float32)
    save_file(tensors, path / "adapter_model.safetensors")
    return path


def test_several_threads_open_one_adapter_once(backend: Backend, fitting: Path, monkeypatch) -> None:
    """Also where all of them have read it before the first one has it loaded."""
    together, loads = threading.Barrier(3), []
    check, init = loras.check_lora, lib.llama_adapter_lora_init

    def checked(path, base):
        together.wait(30)
        return check(path, base)

    def counted(*arguments):
        loads.append(arguments)
        return init(*arguments)

    monkeypatch.setattr(loras, "check_lora", checked)
    monkeypatch.setattr(lib, "llama_adapter_lora_init", counted)
    with ThreadPoolExecutor(3) as threads:
        for opening in [threads.submit(backend.open_adapter, fitting) for _ in range(3)]:
            opening.result()
    assert len(loads) == 1
    assert np.abs(logits(backend, Adapter(fitting)) - logits(backend, None)).max() > 0.01


V = "model.layers.0.self_attn.v_proj"


def test_a_peft_folder_is_converted_once(tiny_models: dict[str, Path], tmp_path: Path, monkeypatch) -> None:
    folder = peft_folder(tmp_path / "peft", {V: (WIDTH, WIDTH)})
    found = []
    for _ in range(2):
        backend = llama_cpp.load(tiny_models["llama"], LoadOptions(threads=1, max_parallel=2))
        backend.open_adapter(folder)
        found.append(logits(backend, Adapter(folder)))
        # The second time nothing is written: the library that writes is out of reach.
        monkeypatch.setattr(
            "local_llms.backends.llama_cpp.lora_convert._write", lambda *_: pytest.fail("written again")
        )
    np.testing.assert_array_equal(*found)
    (file,) = cache_dir().glob("models/peft-*/peft.gguf")
    assert [tensor.name for tensor in read_header(file).tensors] == [
        "blk.0.attn_v.weight.lora_a",
        "blk.0.attn_v.weight.lora_b",
    ]


def test_a_peft_folder_that_changes_is_converted_anew(backend, tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    folder = peft_folder(tmp_path / "peft", {V: (WIDTH, WIDTH)})
    backend.open_adapter(folder)
    before = logits(backend, Adapter(folder))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": 20}))
    other = llama_cpp.load(tiny_models["llama"], LoadOptions(threads=1, max_parallel=2))
    other.open_adapter(folder)
    assert np.abs(logits(other, Adapter(folder)) - before).max() > 0.01


@pytest.mark.parametrize(
    ("modules", "config", "words"),
    [
        ({"model.layers.0.self_attn.q_proj": (WIDTH, 33)}, {}, "rows"),
        ({"model.layers.0.self_attn.z_proj": (WIDTH, WIDTH)}, {}, "z_proj"),
        ({"model.layers.9.self_attn.v_proj": (WIDTH, WIDTH)}, {}, "another model"),
        ({V: (WIDTH, 32)}, {}, "another model"),
        ({"lm_head": (WIDTH, 999)}, {}, "output.weight"),
        ({V: (WIDTH, WIDTH)}, {"use_dora": True}, "DoRA"),
    ],
)
def test_a_peft_folder_that_does_not_fit(backend, tmp_path: Path, modules, config, words) -> None:
    with pytest.raises(AdapterError, match=words):
        backend.open_adapter(peft_folder(tmp_path / "peft", modules, **config))


def test_a_peft_folder_with_whole_weights_or_no_numbers(backend, tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "peft", {V: (WIDTH, WIDTH)})
    good = {f"base_model.model.{V}.lora_A.weight": np.ones((RANK, WIDTH), np.float32)}
    good[f"base_model.model.{V}.lora_B.weight"] = np.full((WIDTH, RANK), np.nan, np.float32)
    save_file(good, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="no numbers"):
        backend.open_adapter(folder)
    good["base_model.model.lm_head.weight"] = np.ones((3, 3), np.float32)
    save_file(good, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="whole weights"):
        backend.open_adapter(folder)


def test_a_peft_folder_for_an_unknown_architecture(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    backend = llama_cpp.load(tiny_models["mamba"], LoadOptions(threads=1))
    with pytest.raises(AdapterError, match=r"convert_lora_to_gguf\.py"):
        backend.open_adapter(peft_folder(tmp_path / "peft", {V: (WIDTH, WIDTH)}))
