"""``about.describe`` tells of files and folders what the loaded model is going to tell, and what an adapter is."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
from safetensors.torch import load_file, save_file  # noqa: E402 - comes with torch's extra

from local_llms.about import describe  # noqa: E402
from local_llms.backends import choose  # noqa: E402
from local_llms.backends.base import BackendInfo, LoadOptions  # noqa: E402
from local_llms.cli.main import app  # noqa: E402
from local_llms.errors import AdapterError, ModelFileError  # noqa: E402
from local_llms.hub.pickle_outline import Outline, outline_of_pickle  # noqa: E402
from tests import chatglm_files, ggml_files  # noqa: E402
from tests.unit.backends import tiny_gguf  # noqa: E402
from tests.unit.backends.rwkv import checkpoints  # noqa: E402


def loaded(path: Path, **options) -> BackendInfo:
    backend = choose(path, None)[0].load(path, LoadOptions(threads=1, **options))
    try:
        return backend.info
    finally:
        backend.close()


def write_old_pth(path: Path, tensors: checkpoints.Tensors) -> Path:
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    return path


WAYS: dict[str, Callable[..., Path]] = {
    ".pth": checkpoints.write_pth,
    ".pt": write_old_pth,
    ".safetensors": checkpoints.write_safetensors,
    ".bin": checkpoints.write_ggmf,
}


@pytest.mark.parametrize("version", checkpoints.VERSIONS)
def test_rwkv_weights(tmp_path: Path, version: str) -> None:
    tensors = checkpoints.make(version, layers=3)
    for suffix, write in WAYS.items():
        if version == "5.1" and suffix == ".bin":
            continue  # rwkv.cpp arranges that version in no other way than 5
        path = write(tmp_path / f"RWKV-tiny-ctx1024{suffix}", tensors)
        about, info = describe(path), loaded(path)
        assert about.architecture == info.architecture == f"rwkv{version}", suffix
        assert (about.parameters, about.quantization) == (info.parameters, info.quantization), suffix
        assert (about.layers, about.vocabulary_size, about.vocabulary) == (3, info.vocabulary_size, info.vocabulary)
        assert about.trained_context_length == info.trained_context_length == 1024
        path.unlink()


def test_rwkv_weights_of_the_world_in_a_folder(tmp_path: Path) -> None:
    tensors = checkpoints.make("7", vocabulary=65536, width=32, heads=1, layers=1)
    checkpoints.write_pth(tmp_path / "model.pth", tensors, torch.bfloat16)
    about = describe(tmp_path)
    assert (about.architecture, about.layers, about.vocabulary_size, about.quantization) == ("rwkv7", 1, 65536, "BF16")
    assert about.vocabulary == "RWKV World, since it has 65536 tokens"
    shutil.copy(tmp_path / "model.pth", tmp_path / "second.pth")
    assert describe(tmp_path).architecture is None


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = checkpoints.write_ggmf(tmp_path / "cut.bin", checkpoints.make("7"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelFileError, match="truncated or damaged"):
        describe(path)


def test_a_pickle_is_read_as_data_only(tmp_path: Path) -> None:
    """Nothing in it is called, whatever it says; what is not understood tells nothing."""
    state = OrderedDict(a=torch.zeros(2, 3, dtype=torch.float16), b=torch.nn.Parameter(torch.zeros(4)))
    state["a slice"] = torch.zeros(8, 8)[2:5]
    torch.save({"module": state, "step": 3, "notes": ["x", {"y"}, 1.5, None, True]}, tmp_path / "whole.pth")
    assert outline_of_pickle(tmp_path / "whole.pth") == {
        "a": Outline("F16", (2, 3)),
        "b": Outline("F32", (4,)),
        "a slice": Outline("F32", (3, 8)),
    }

    class Bad:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"blocks.0.att.r_k": Bad(), "c": torch.zeros(1)}, tmp_path / "bad.pth")
    assert outline_of_pickle(tmp_path / "bad.pth") == {"c": Outline("F32", (1,))}
    for content in (pickle.dumps({1: {2}, "n": 3}), pickle.dumps([1, 2]), b"\x80\x02.", b"\x80\x02}", b"\x80\x04\x95"):
        (tmp_path / "other.pth").write_bytes(content)
        assert outline_of_pickle(tmp_path / "other.pth") == {}
    assert not (tmp_path / "touched").exists()


def test_a_folder_of_the_library(data: Path, tmp_path: Path) -> None:
    source = data / "models" / "stories260K" / "hf"
    about, info = describe(source), loaded(source)
    assert about.architecture == info.architecture == "llama"
    assert about.parameters == info.parameters == 260_032
    assert (about.layers, about.vocabulary_size, about.quantization) == (5, info.vocabulary_size, "F32")
    assert about.trained_context_length == info.trained_context_length == 512

    folder = tmp_path / "pickled"
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    table = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({name: tensors[name].half() for name in part}, folder / file)
        table |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))
    about = describe(folder)
    assert (about.parameters, about.quantization, about.layers) == (260_032, "F16", 5)
    # A file of weights in a folder means the folder.
    assert describe(folder / file).layers == 5


def test_checkpoints_of_lit(data: Path, tmp_path: Path) -> None:
    tensors = load_file(data / "models" / "stories260K" / "hf" / "model.safetensors")
    weights = {"transformer.wte.weight": tensors["model.embed_tokens.weight"]}
    for layer in range(2):
        weights[f"transformer.h.{layer}.attn.attn.weight"] = torch.zeros(3, 4)
    torch.save(weights, tmp_path / "lit_model.pth")
    (tmp_path / "model_config.yaml").write_text('name: tiny\nblock_size: 512\nmlp_class_name: "LLaMAMLP"\n')
    about = describe(tmp_path)
    assert (about.architecture, about.layers, about.vocabulary_size) == ("llama", 2, 512)
    assert (about.trained_context_length, about.parameters) == (512, 512 * 64 + 24)
    (tmp_path / "model_config.yaml").unlink()
    (tmp_path / "lit_config.json").write_text(json.dumps({"block_size": 64, "_mlp_class": "GptNeoxMLP"}))
    about = describe(tmp_path)
    assert (about.architecture, about.trained_context_length) == ("gpt_neox", 64)


def test_a_folder_of_chatglm(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    folder = chatglm_files.random_first(tmp_path / "chatglm-6b")
    about, info = describe(folder), loaded(folder)
    assert about.architecture == info.architecture == "chatglm"
    assert (about.parameters, about.layers) == (info.parameters, 2)
    assert about.vocabulary_size == info.vocabulary_size
    assert about.trained_context_length == info.trained_context_length


def test_gguf_and_ggml_files(tmp_path: Path) -> None:
    about = describe(tiny_gguf.write_llama(tmp_path / "tiny.gguf"))
    assert about.layers >= 1
    assert about.vocabulary_size > 1
    about = describe(ggml_files.write_tiny_llama(tmp_path / "tiny.bin"))
    assert (about.architecture, about.layers >= 1, about.vocabulary_size > 1) == ("llama", True, True)


def test_a_peft_folder_is_no_model_and_says_what_it_is(data: Path, tmp_path: Path) -> None:
    about = describe(data / "models" / "stories260K-lora")
    assert (about.kind, about.base, about.backend, about.template) == ("adapter", "stories260K", None, None)
    assert about.change == "a LoRA of rank 8 for down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    assert about.parameters > 0
    assert describe(data / "models" / "stories260K-lora" / "adapter_model.safetensors").change == about.change
    shown = CliRunner().invoke(app, ["info", str(data / "models" / "stories260K-lora")]).stdout
    assert "nothing by itself: it is an adapter" in shown
    assert "stories260K" in shown
    assert "adapter=" in shown
    assert "makes           text" not in shown

    name = "base_model.model.model"
    tensors = {
        f"{name}.layers.0.q_proj.lora_A.weight": torch.zeros(4, 9),
        f"{name}.layers.0.q_proj.lora_B.weight": torch.zeros(9, 4),
        f"{name}.layers.0.v_proj.lora_A.weight": torch.zeros(16, 9),
        f"{name}.embed_tokens.weight": torch.zeros(3, 9),
    }
    for format_ in ("adapter_model.bin", "adapter_model.safetensors"):
        folder = tmp_path / format_
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
        if format_.endswith(".bin"):
            torch.save(tensors, folder / format_)
        else:
            save_file(tensors, folder / format_)
        about = describe(folder)
        assert about.change == "a LoRA of rank 4 to 16 for q_proj, v_proj, which replaces embed_tokens"
        assert about.base is None


def test_a_gguf_adapter(data: Path) -> None:
    (file,) = (data / "models" / "stories260K-lora").glob("*.gguf")
    about = describe(file)
    assert (about.kind, about.architecture) == ("adapter", "llama")
    assert about.change == "a LoRA of rank 8 for attn_k, attn_output, attn_q, attn_v, ffn_down, ffn_gate, ffn_up"


@pytest.mark.parametrize("projected", [0, 6])
def test_a_prefix_of_p_tuning(tmp_path: Path, projected: int) -> None:
    folder = chatglm_files.random_prefix(tmp_path / "prefix", layers=2, heads=2, size=4, projected=projected)
    for with_config in (False, True):
        if with_config:
            (folder / "config.json").write_text(json.dumps({"model_type": "chatglm", "_name_or_path": "THUDM/glm"}))
        about = describe(folder)
        assert (about.kind, about.architecture) == ("adapter", "chatglm")
        assert about.base == ("THUDM/glm" if with_config else None)
        assert about.change is not None
        assert about.change.startswith("a P-tuning prefix of ")
        assert about.change.endswith(" tokens, with projection") == bool(projected)


def test_an_adapter_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(AdapterError, match="'IA3'"):
        describe(tmp_path)
