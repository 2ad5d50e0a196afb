"""Models of the hub, loaded by their place there: one file, several, a folder, an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llms import load_model
from local_llms.errors import AdapterError, ModelFileError
from tests.unit.hub.fake_hub import FILE, REPOSITORY, FakeHub
from tests.unit.hub.hub_tests import running_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    yield from running_hub(monkeypatch)


@pytest.mark.parametrize("name", [f"hf:{REPOSITORY}", f"hf:{REPOSITORY}:{FILE}"])
def test_a_model_is_loaded_by_its_place(hub: FakeHub, data: Path, name: str) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    stories = sorted((data / "models" / "stories260K").glob("*F32*.gguf")) or sorted(
        (data / "models" / "stories260K").glob("*.gguf")
    )
    hub.files[FILE] = stories[0].read_bytes()
    with load_model(name, template="plain", context_length=128) as model:
        assert model.info.path.name == FILE
        assert model.generate("Once upon a time", max_tokens=4, temperature=0).usage.completion_tokens == 4
    assert hub.transfers == 1


def stories(data: Path) -> Path:
    return next((data / "models" / "stories260K").glob("*F32.gguf"))


def split(source: Path, folder: Path, tensors: int) -> dict[str, bytes]:
    """The same model in several files."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(folder / "owl.gguf", "llama", split_max_tensors=tensors)
    for name, field in reader.fields.items():
        if not name.startswith(("GGUF.", "general.architecture")):
            kind, inner = field.types[0], field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("named", [True, False])
def test_a_model_in_several_gguf_files(hub: FakeHub, data: Path, tmp_path: Path, named: bool) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    hub.files = split(stories(data), tmp_path, tensors=20)
    first = min(hub.files)
    assert first.startswith("owl-00001-of-0000")
    with load_model(stories(data), template="plain", context_length=128) as whole:
        expected = whole.generate("Once upon a time", max_tokens=8, temperature=0).text
    name = f"hf:{REPOSITORY}:{first}" if named else f"hf:{REPOSITORY}"
    with load_model(name, template="plain", context_length=128) as model:
        assert model.info.path.name == first
        assert model.info.size == sum(map(len, hub.files.values()))
        assert model.generate("Once upon a time", max_tokens=8, temperature=0).text == expected
    assert hub.transfers == len(hub.files) > 2


def test_a_folder(hub: FakeHub, data: Path) -> None:
    for library in ("torch", "transformers"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    folder = data / "models" / "stories260K" / "hf"
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    hub.files = {**files, "modeling_llama.py": b"raise SystemExit", "pytorch_model.bin": b"pickle"}
    with load_model(f"hf:{REPOSITORY}", template="plain", context_length=128, threads=1) as model:
        assert (model.info.path.name, model.info.backend) == (hub.commit, "transformers")
        assert model.info.size == sum(map(len, files.values()))
        text = model.generate("Once upon a time", max_tokens=8, temperature=0).text
    assert hub.transfers == len(files)
    with load_model(folder, template="plain", context_length=128, threads=1) as model:
        assert model.generate("Once upon a time", max_tokens=8, temperature=0).text == text


def test_an_adapter_over_a_file(hub: FakeHub, data: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    folder = data / "models" / "stories260K-lora"
    hub.files = {file.name: file.read_bytes() for file in folder.iterdir()}
    with load_model(stories(data), template="plain", context_length=256) as model:
        plain = model.generate("Once upon a time", max_tokens=24, temperature=0).text
        by_place = model.generate("Once upon a time", adapter=f"hf:{REPOSITORY}", max_tokens=24, temperature=0).text
        by_path = model.generate("Once upon a time", adapter=str(folder), max_tokens=24, temperature=0).text
    assert by_place == by_path != plain
    assert hub.transfers == 2


def test_an_adapter_is_no_model_and_a_model_no_adapter(hub: FakeHub, data: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    folder = data / "models" / "stories260K-lora"
    hub.files = {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith(".gguf")}
    with pytest.raises(ModelFileError, match="adapter"):
        load_model(f"hf:{REPOSITORY}", template="plain")
    hub.files = {FILE: stories(data).read_bytes()}
    hub.commit = "d" * 40
    with load_model(stories(data), template="plain", context_length=128) as model, pytest.raises(AdapterError):
        model.generate("Once", adapter=f"hf:{REPOSITORY}:{FILE}", max_tokens=2)
