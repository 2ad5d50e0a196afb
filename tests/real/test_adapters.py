"""LoRA adapters in llama.cpp against PEFT, on the small trained models."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from local_llms import load_model
from local_llms.backends import llama_cpp
from local_llms.backends.base import Adapter, Chunk, LoadOptions
from local_llms.backends.llama_cpp import lora_convert
from local_llms.models import LoadedModel

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]

GREEDY = {"temperature": 0, "max_tokens": 120}
PROMPTS = ["Once upon a time", "Lily's mom said", "The king", "One day, a dog"]


@pytest.fixture(scope="module")
def stories(shared_data: Path) -> Path:
    return shared_data / "models/stories260K/stories260K-F32.gguf"


@pytest.fixture(scope="module")
def shakespeare(shared_data: Path) -> Path:
    """A PEFT folder, in which the same adapter lies as a GGUF file."""
    return shared_data / "models/stories260K-lora"


@pytest.fixture(scope="module")
def loaded(stories: Path) -> LoadedModel:
    with load_model(stories, template="plain", threads=1) as model:
        yield model


def gguf_of(folder: Path) -> Path:
    return folder / "stories260K-lora-shakespeare-F32.gguf"


def peft_text(folder: Path, adapter: Path | None, prompt: str) -> str:
    """What transformers and PEFT answer."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    if adapter is not None:
        model = peft.PeftModel.from_pretrained(model, adapter)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    out = model.generate(input_ids=ids, max_new_tokens=GREEDY["max_tokens"], do_sample=False)
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize(("prompt", "cache_dtype"), [(PROMPTS[0], "f16"), (PROMPTS[0], "f32"), (PROMPTS[1], "f32")])
def test_the_text_is_pefts(stories, shared_data: Path, shakespeare: Path, prompt: str, cache_dtype: str) -> None:
    # After the second prompt two tokens are as good as equally probable, and float16 chooses the other one.
    folder = shared_data / "models/stories260K/hf"
    plain, tuned = peft_text(folder, None, prompt), peft_text(folder, shakespeare, prompt)
    assert plain != tuned
    with load_model(stories, template="plain", threads=1, cache_dtype=cache_dtype) as loaded:
        for adapter in (shakespeare, gguf_of(shakespeare)):
            assert loaded.generate(prompt, **GREEDY).text == plain
            assert loaded.generate(prompt, adapter=adapter, **GREEDY).text == tuned
            assert loaded.generate(prompt, adapter=adapter, adapter_scale=0, **GREEDY).text == plain


def test_eight_at_once_half_of_them_with_the_adapter(stories: Path, shakespeare: Path, monkeypatch) -> None:
    loads: list[Path] = []
    load = llama_cpp.load
    monkeypatch.setattr(llama_cpp, "load", lambda path, options: loads.append(path) or load(path, options))
    options = {"template": "plain", "threads": 1, "max_parallel": 8}
    alone: dict[tuple[str, bool], str] = {}
    for tuned in (False, True):
        for prompt in PROMPTS:
            # A handle of its own each time, so that nothing is left of the one before.
            with load_model(stories, **options, **({"adapter": shakespeare} if tuned else {})) as model:
                alone[prompt, tuned] = model.generate(prompt, **GREEDY).text
    assert len(loads) == 8
    with load_model(stories, **options) as plain, load_model(stories, adapter=shakespeare, **options) as other:
        for _ in range(3):
            asked = [(prompt, tuned) for prompt in PROMPTS for tuned in (False, True)]
            streams = [(other if tuned else plain).submit(prompt, **GREEDY) for prompt, tuned in asked]
            assert [stream.result().text for stream in streams] == [alone[key] for key in asked]
        # All three rounds, both handles and every switch: the model and the adapter were opened once.
        assert len(loads) == 9
        assert plain.stats().adapters == 1
        assert plain.stats().finished == 24


def write_lora(folder: Path, model: Any, targets: list[str], **config: Any) -> Path:
    """A LoRA with random weights, as PEFT saves it."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    torch.manual_seed(3)
    options = {"r": 4, "lora_alpha": 8, "target_modules": targets, "task_type": "CAUSAL_LM", **config}
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**options))
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.15)
    wrapped.save_pretrained(folder)
    return folder


LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "llama": ("stories260K/hf", "stories260K/stories260K-F32.gguf", LLAMA, {}),
    "llama, a strength for each module": (
        "stories260K/hf",
        "stories260K/stories260K-F32.gguf",
        LLAMA,
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.k_proj": 3}, "use_rslora": True},
    ),
    "llama, embeddings too": ("stories260K/hf", "stories260K/stories260K-F32.gguf", ["embed_tokens", "v_proj"], {}),
    "gptneox": (
        "neox-stories",
        "neox-stories/neox-stories-F32.gguf",
        ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
        {},
    ),
    "chatglm": (
        "glm-stories",
        "glm-stories/glm-stories-F32.gguf",
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"],
        {},
    ),
    "chatglm, a part of query, key and value": ("glm-stories", "glm-stories/glm-stories-F32.gguf", ["k_proj"], {}),
}


@pytest.mark.parametrize("case", CASES)
def test_random_adapters_give_the_logits_of_peft(shared_data: Path, tmp_path: Path, case: str) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    torch.set_num_threads(1)
    source, file, targets, config = CASES[case]
    folder = shared_data / "models" / source
    adapter = write_lora(
        tmp_path / "lora", transformers.AutoModelForCausalLM.from_pretrained(folder), targets, **config
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = list(range(5, 45))
    with torch.no_grad():
        base = model(torch.tensor([ids])).logits[0].numpy().copy()
        expected = peft.PeftModel.from_pretrained(model, adapter)(torch.tensor([ids])).logits[0].numpy()
    backend = llama_cpp.load(shared_data / "models" / file, LoadOptions(threads=1, max_parallel=2, cache_dtype="f32"))
    backend.open_adapter(adapter)
    found = backend.decode([Chunk(0, 0, ids, "all")], Adapter(adapter)).copy()
    plain = backend.decode([Chunk(1, 0, ids, "all")]).copy()
    backend.close()
    off = np.abs(found - expected).max()
    assert np.abs(expected - base).max() > 1.0, "the adapter changes little"
    assert np.abs(plain - base).max() < 0.01
    assert off < 0.01, off


def test_a_configuration_of_2023_and_its_pickle(shared_data: Path, shakespeare: Path, tmp_path: Path, loaded) -> None:
    """As alpaca-lora published its adapters: few keys, ``adapter_model.bin``, one file for all of it."""
    torch, safetensors = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    folder = tmp_path / "alpaca-lora"
    folder.mkdir()
    torch.save(safetensors.load_file(shakespeare / "adapter_model.safetensors"), folder / "adapter_model.bin")
    config = {
        "base_model_name_or_path": "decapoda-research/llama-7b-hf",
        "bias": "none",
        "enable_lora": None,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "merge_weights": False,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 8,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    expected = loaded.generate("The king", adapter=shakespeare, **GREEDY).text
    assert loaded.generate("The king", adapter=folder, **GREEDY).text == expected


def test_others_tokens_go_on_while_a_folder_is_converted(
    shakespeare: Path, tmp_path: Path, loaded, monkeypatch
) -> None:
    """Several who name it at once have it converted once, and nobody else waits for it."""
    folder = tmp_path / "lora"
    shutil.copytree(shakespeare, folder, ignore=shutil.ignore_patterns("*.gguf"))
    expected = loaded.generate(PROMPTS[0], adapter=shakespeare, **GREEDY).text
    write, writing, go_on = lora_convert._write, threading.Event(), threading.Event()
    written: list[Path] = []

    def slow(architecture, pairs, target) -> None:
        written.append(target)
        writing.set()
        assert go_on.wait(30)
        write(architecture, pairs, target)

    monkeypatch.setattr(lora_convert, "_write", slow)
    with ThreadPoolExecutor(3) as threads:
        answers = [threads.submit(loaded.generate, PROMPTS[0], adapter=folder, **GREEDY) for _ in range(3)]
        assert writing.wait(30)
        assert loaded.generate("The king", **GREEDY).text
        assert not any(answer.done() for answer in answers)
        go_on.set()
        assert [answer.result().text for answer in answers] == [expected] * 3
    assert len(written) == 1
