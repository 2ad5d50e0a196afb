"""Adapters that become a part of the model, PEFT folders of 2023, and weights in fewer bits."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
from safetensors.torch import load_file, save_file  # noqa: E402 - comes with torch's extra

from local_llms import load_model  # noqa: E402
from local_llms.backends import transformers  # noqa: E402
from local_llms.backends.base import Adapter, Backend, Chunk, LoadOptions  # noqa: E402
from local_llms.errors import AdapterError, OptionError  # noqa: E402
from tests.real.test_architectures import CONFIGS, write  # noqa: E402

ONE_THREAD = LoadOptions(threads=1)


def rows(backend: Backend, ids: Sequence[int], adapter: Adapter | None = None) -> np.ndarray:
    found = backend.decode([Chunk(0, 0, ids, "all")], adapter).copy()
    backend.free(0)
    return found


@pytest.fixture
def base(shared_data: Path) -> Path:
    return shared_data / "models/stories260K/hf"


@pytest.fixture
def lora(shared_data: Path) -> Path:
    return shared_data / "models/stories260K-lora"


IDS = [1, 403, 407, 261, 378, 432, 5, 9]


def library_rows(base: Path, adapter: Path, ids: Sequence[int], tokens: int | None = None) -> np.ndarray:
    """The same through transformers and PEFT."""
    import peft
    from transformers import AutoModelForCausalLM

    with contextlib.redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if tokens is not None:
        model.resize_token_embeddings(tokens, mean_resizing=False)
    with torch.inference_mode():
        model = peft.PeftModel.from_pretrained(model, str(adapter))
        return model(torch.tensor([list(ids)])).logits[0].numpy()


def test_an_adapter_of_2023(base: Path, lora: Path, tmp_path: Path) -> None:
    """alpaca-lora's: few keys in the configuration, weights as a pickle."""
    weights = load_file(lora / "adapter_model.safetensors")
    torch.save(weights, tmp_path / "adapter_model.bin")
    config = {
        "base_model_name_or_path": "decapoda-research/llama-7b-hf", "bias": "none", "enable_lora": None,
        "fan_in_fan_out": False, "inference_mode": True, "lora_alpha": 16, "lora_dropout": 0.05, "merge_weights": False,
        "modules_to_save": None, "peft_type": "LORA", "r": 8, "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    }  # fmt: skip
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    backend = transformers.load(base, ONE_THREAD)
    for path in (tmp_path, lora):
        backend.open_adapter(path)
    assert (rows(backend, IDS, Adapter(tmp_path)) == rows(backend, IDS, Adapter(lora))).all()


def test_an_adapter_for_another_model(base: Path, lora: Path, shared_data: Path, tmp_path: Path) -> None:
    other = transformers.load(shared_data / "models/neox-stories", ONE_THREAD)
    with pytest.raises(AdapterError, match="another model"):
        other.open_adapter(lora)
    backend = transformers.load(base, ONE_THREAD)
    before = rows(backend, IDS)
    shutil.copy(lora / "adapter_config.json", tmp_path)
    weights = load_file(lora / "adapter_model.safetensors")
    name = next(name for name in weights if name.endswith("lora_A.weight"))
    for wrong in (weights[name][:, :-1], torch.full_like(weights[name], float("nan"))):
        save_file({**weights, name: wrong.contiguous()}, tmp_path / "adapter_model.safetensors")
        with pytest.raises(AdapterError):
            backend.open_adapter(tmp_path)
    assert (rows(backend, IDS) == before).all()


def larger_vocabulary(folder: Path, lora: Path, base: Path, tied: bool) -> int:
    """An adapter like Chinese-Alpaca's: 13 tokens more, embeddings and output of its own."""
    weights = load_file(lora / "adapter_model.safetensors")
    embeddings = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    torch.manual_seed(3)
    more = torch.randn(13, embeddings.shape[1]) * 0.02
    tokens = len(embeddings) + len(more)
    whole = {"base_model.model.model.embed_tokens.weight": torch.cat((embeddings, more))}
    if not tied:
        whole["base_model.model.lm_head.weight"] = torch.cat((embeddings * 1.5, more))
    save_file({**weights, **whole}, folder / "adapter_model.safetensors")
    config = json.loads((lora / "adapter_config.json").read_text())
    config["modules_to_save"] = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["added_tokens"] += [
        {**tokenizer["added_tokens"][0], "id": 512 + number, "content": f"<{number}>", "special": False}
        for number in range(13)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    shutil.copy(base / "tokenizer_config.json", folder)
    return tokens


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_larger_vocabulary(base: Path, lora: Path, tmp_path: Path) -> None:
    tokens = larger_vocabulary(tmp_path, lora, base, tied=False)
    backend = transformers.load(base, LoadOptions(threads=1, adapter=tmp_path))
    assert backend.info.vocabulary_size == tokens
    assert backend.info.special_tokens["<3>"] == 515
    ids = [*IDS, 513, 520]
    expected = library_rows(base, tmp_path, ids, tokens)
    np.testing.assert_allclose(rows(backend, ids), expected, atol=1e-4)
    plain = transformers.load(base, ONE_THREAD)
    with pytest.raises(AdapterError, match="load_model"):
        plain.open_adapter(tmp_path)


def test_a_change_of_the_larger_output(base: Path, lora: Path, tmp_path: Path) -> None:
    """A LoRA may be for the very matrix that the adapter makes larger."""
    tokens = larger_vocabulary(tmp_path, lora, base, tied=False)
    before = rows(transformers.load(base, LoadOptions(threads=1, adapter=tmp_path)), IDS)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    ones = {"A": torch.ones(8, 64), "B": torch.ones(tokens, 8)}
    more = {f"base_model.model.lm_head.lora_{half}.weight": tensor for half, tensor in ones.items()}
    save_file({**weights, **more}, tmp_path / "adapter_model.safetensors")
    found = rows(transformers.load(base, LoadOptions(threads=1, adapter=tmp_path)), IDS)
    # The same is added to each logit of a row.
    np.testing.assert_allclose((found - before).std(1), 0, atol=1e-3)
    assert np.abs(found - before).max() > 0.1


def test_a_vocabulary_that_is_larger_at_one_end_only(shared_data: Path, tmp_path: Path) -> None:
    model = shared_data / "models/neox-stories"
    embeddings = load_file(model / "model.safetensors")["gpt_neox.embed_in.weight"]
    whole = {"base_model.model.gpt_neox.embed_in.weight": torch.cat((embeddings, embeddings[:3]))}
    save_file(whole, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "modules_to_save": ["embed_in"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match="515 tokens to read and 512 to write"):
        transformers.load(model, LoadOptions(threads=1, adapter=tmp_path))


def test_matrices_that_lie_the_other_way_round(base: Path, tmp_path: Path) -> None:
    """GPT-2 keeps its linear weights transposed, square ones too: merged they give what hooks give."""
    model, adapter, merged = (tmp_path / name for name in ("model", "adapter", "merged"))
    write(model, CONFIGS["gpt2"]())
    torch.manual_seed(4)
    tensors = {
        f"base_model.model.transformer.h.1.{name}.lora_{half}.weight": torch.randn(*shape)
        for name, inner, outer in (("attn.c_proj", 32, 32), ("attn.c_attn", 32, 96), ("mlp.c_proj", 128, 32))
        for half, shape in (("A", (4, inner)), ("B", (outer, 4)))
    }
    whole = {
        "base_model.model.transformer.wte.weight": load_file(model / "model.safetensors")["transformer.wte.weight"]
    }
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "fan_in_fan_out": True}
    for folder, held, more in ((adapter, tensors, {}), (merged, tensors | whole, {"modules_to_save": ["wte"]})):
        folder.mkdir()
        save_file(held, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps({**config, **more}))
    hooked = transformers.load(model, ONE_THREAD)
    hooked.open_adapter(adapter)
    ids = [5, 90, 200, 31, 7]
    expected = rows(hooked, ids, Adapter(adapter))
    assert distance(expected, rows(hooked, ids)) > 0.01
    found = rows(transformers.load(model, LoadOptions(threads=1, adapter=merged)), ids)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())


def test_tied_embeddings_stay_tied(base: Path, lora: Path, tmp_path: Path) -> None:
    tokens = larger_vocabulary(tmp_path, lora, base, tied=True)
    backend = transformers.load(base, LoadOptions(threads=1, adapter=tmp_path))
    assert backend.info.vocabulary_size == tokens
    plain = transformers.load(base, ONE_THREAD)
    plain.open_adapter(lora)
    np.testing.assert_allclose(rows(backend, IDS)[:, :512], rows(plain, IDS, Adapter(lora)), atol=1e-4)


def test_a_larger_vocabulary_by_name(base: Path, lora: Path, tmp_path: Path) -> None:
    larger_vocabulary(tmp_path, lora, base, tied=False)
    with load_model(base, adapter=str(tmp_path), template="plain", threads=1) as model:
        assert model.info.parameters > 0
        assert model.generate("Once", temperature=0, max_tokens=8).text


def test_a_tokenizer_that_is_too_large(base: Path, lora: Path, tmp_path: Path) -> None:
    larger_vocabulary(tmp_path, lora, base, tied=False)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copy(lora / name, tmp_path)
    with pytest.raises(AdapterError, match="tokenizer"):
        transformers.load(base, LoadOptions(threads=1, adapter=tmp_path))


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.1), ("int4", 0.4)])
def test_fewer_bits(base: Path, lora: Path, kind: str, most: float, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    whole = transformers.load(base, ONE_THREAD)
    small = transformers.load(base, LoadOptions(threads=1, quantization=kind))
    assert small.info.quantization == kind
    # Embeddings, norms and the output stay as they are, and those are a good part of so small a model.
    assert 0 < small.info.weight_bytes < 0.7 * whole.info.weight_bytes
    found = rows(small, IDS)
    assert 0 < distance(found, rows(whole, IDS)) < most
    for backend in (whole, small):
        backend.open_adapter(lora)
    assert distance(rows(small, IDS, Adapter(lora)), rows(whole, IDS, Adapter(lora))) < most
    assert (rows(small, IDS) == found).all()
    assert not caplog.records


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Of logits, as a part of how much they vary."""
    return float(np.sqrt(np.mean((found - expected) ** 2)) / expected.std())


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
def test_number_types(base: Path, kind: str) -> None:
    backend = transformers.load(base, LoadOptions(threads=1, dtype=kind))
    assert backend.info.quantization == kind
    assert backend.info.weight_bytes == backend.info.parameters * (4 if kind == "float32" else 2)
    exact = rows(transformers.load(base, ONE_THREAD), IDS)
    off = np.abs(rows(backend, IDS) - exact).max(1) / exact.std(1)
    assert off.max() < {"float32": 1e-6, "float16": 0.02, "bfloat16": 0.2}[kind]


def test_a_device_that_is_not_there(base: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(OptionError, match="CUDA"):
        transformers.load(base, LoadOptions(device="cuda"))
    with pytest.raises(OptionError, match="cache_dtype"):
        transformers.load(base, LoadOptions(cache_dtype="q8_0"))
