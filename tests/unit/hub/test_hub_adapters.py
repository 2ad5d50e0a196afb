"""``adapter="hf:…"``: PEFT folders and P-tuning prefixes of the hub compute as the same folders here do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
from local_llms import load_model
from local_llms.about import describe
from local_llms.errors import AdapterError, DownloadError
from local_llms.models import LoadedModel
from tests import chatglm_files
from tests.unit.hub.fake_hub import REPOSITORY, FakeHub
from tests.unit.hub.hub_tests import running_hub

NAME = f"hf:{REPOSITORY}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for hub in running_hub(monkeypatch):
        hub.files = {}
        yield hub


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    return chatglm_files.random_first(tmp_path_factory.mktemp("base") / "chatglm-6b")


def answer(model: LoadedModel, **options) -> list[int]:
    return list(model.generate("Lily had a dog", max_tokens=12, temperature=0, **options).token_ids)


def put(hub: FakeHub, folder: Path, *, prefix: str = "", leave_out: str = "") -> None:
    hub.files = {f"{prefix}{file.name}": file.read_bytes() for file in folder.iterdir() if file.name != leave_out}


@pytest.mark.parametrize(
    ("prefix", "leave_out", "name"),
    [
        ("", "", NAME),
        ("", "config.json", NAME),
        ("checkpoint-3000/", "config.json", f"{NAME}:checkpoint-3000/model.safetensors"),
    ],
)
def test_a_prefix_of_p_tuning(hub: FakeHub, base: Path, tmp_path: Path, prefix: str, leave_out: str, name: str) -> None:
    folder = chatglm_files.random_prefix(tmp_path / "prefix", layers=2, heads=8, size=4, projected=6)
    put(hub, folder, prefix=prefix, leave_out=leave_out)
    with load_model(base, threads=1) as model:
        expected, plain = answer(model, adapter=str(folder)), answer(model)
        assert expected != plain
        assert answer(model, adapter=name) == expected
        assert asyncio.run(model.agenerate("Lily had a dog", max_tokens=12, temperature=0, adapter=name)).text
        assert answer(model) == plain
        with load_model(base, threads=1, adapter=name) as tuned:
            assert answer(tuned) == expected
        # A file of weights means its folder, here as well.
        assert answer(model, adapter=str(folder / "model.safetensors")) == expected
    assert hub.transfers == len(hub.files)
    if not prefix:
        assert describe(NAME).kind == "adapter"


@pytest.mark.parametrize("leave_out", ["", "adapter_model.safetensors"])
def test_a_peft_folder(hub: FakeHub, data: Path, leave_out: str, tmp_path: Path) -> None:
    """With both kinds of weights the safetensors are taken, and nothing is read as a pickle."""
    import torch
    from safetensors.torch import load_file

    source = data / "models" / "stories260K-lora"
    put(hub, source)
    hub.files = {name: content for name, content in hub.files.items() if not name.endswith(".gguf")}
    torch.save(load_file(source / "adapter_model.safetensors"), tmp_path / "weights")
    hub.files["adapter_model.bin"] = (tmp_path / "weights").read_bytes() if leave_out else b"no pickle at all" * 99
    hub.files.pop(leave_out, None)
    with load_model(data / "models" / "stories260K" / "hf", threads=1, template="plain") as model:
        expected = answer(model, adapter=str(source))
        assert expected != answer(model)
        assert answer(model, adapter=NAME) == expected


def test_what_is_no_adapter(hub: FakeHub, base: Path) -> None:
    hub.files = {"README.md": b"#"}
    with load_model(base, threads=1) as model:
        with pytest.raises(DownloadError, match="no model that can be loaded"):
            answer(model, adapter=NAME)
        put(hub, base)
        with pytest.raises(AdapterError, match="no adapter"):
            answer(model, adapter=NAME)
