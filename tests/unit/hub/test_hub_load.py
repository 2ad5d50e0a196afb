"""A model of the hub, loaded by its place there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llms import load_model
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
