"""PyTorch checkpoints: converted once, and never run."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from local_llms.errors import DownloadError, MissingDependency, ModelFileError
from local_llms.hub.inventory import kept_models
from local_llms.hub.pickles import LEFT_OUT, as_safetensors, peek
from local_llms.paths import cache_dir

TENSORS = {
    "a.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "c": torch.tensor(7, dtype=torch.int64),
    "empty": torch.empty(0, 4),
}


def content(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def same(path: Path, expected: dict[str, torch.Tensor] = TENSORS) -> None:
    found = content(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_keep_names_shapes_types_and_values(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
    same(as_safetensors(path, extra="x"))


def test_it_is_converted_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    torch.save(TENSORS, path)
    first = as_safetensors(path, extra="x")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: pytest.fail("read again"))
        assert as_safetensors(path, extra="x") == first
    torch.save({"other": torch.ones(2)}, path)
    os.utime(path, ns=(1, 1))
    second = as_safetensors(path, extra="x")
    assert second != first
    same(second, {"other": torch.ones(2)})


def test_a_converted_file_that_was_damaged_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(TENSORS, path)
    made = as_safetensors(path, extra="x")
    made.write_bytes(made.read_bytes()[:-1] + b"\x55")
    same(as_safetensors(path, extra="x"))


def test_it_is_listed_and_can_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "my-model.pth"
    torch.save(TENSORS, path)
    made = as_safetensors(path, extra="x")
    (kept,) = [kept for kept in kept_models() if kept.path == made]
    assert kept.name.startswith("my-model-")
    assert kept.verify()
    assert kept.remove() > 0
    assert not made.exists()


def test_tensors_that_share_memory_or_lie_across_it(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"whole": whole, "part": whole[1], "turned": whole.T, "parameter": torch.nn.Parameter(torch.ones(2))}
    path = tmp_path / "model.pth"
    torch.save(tensors, path)
    same(as_safetensors(path, extra="x"), {name: tensor.detach() for name, tensor in tensors.items()})


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module"])
def test_weights_below_a_name_of_training_programs(wrapper: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({wrapper: TENSORS, "epoch": 3, "optimizer": {"lr": 0.1}}, path)
    same(as_safetensors(path, extra="x"))


def test_what_is_no_tensor_is_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({**TENSORS, "_strategy": "cpu fp32", "step": 3}, path)
    made = as_safetensors(path, extra="x")
    same(made)
    with safe_open(made, "pt") as file:
        assert json.loads(file.metadata()[LEFT_OUT]) == ["_strategy", "step"]


class Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (os.environ["EVIL_PLACE"],)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["alone", "inside", "deep"])
def test_code_in_a_pickle_is_never_run(
    zipped: bool, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    monkeypatch.setenv("EVIL_PLACE", str(made))
    evil = {"alone": Evil(), "inside": {"w": torch.ones(2), "x": Evil()}, "deep": {"model": {"x": [Evil()]}}}[place]
    path = tmp_path / "model.pth"
    torch.save(evil, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelFileError, match="could run code"):
        as_safetensors(path, extra="x")
    assert not made.exists()
    assert not cache_dir().exists()
    # The file would run it, were it read as pickles usually are.
    torch.load(path, weights_only=False)
    assert made.exists()


@pytest.mark.parametrize("value", [[torch.ones(2)], 5, {}, {"text": "only"}, {"deep": {"w": torch.ones(2)}}])
def test_a_checkpoint_without_tensors_by_name(value: object, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(value, path)
    with pytest.raises(ModelFileError):
        as_safetensors(path, extra="x")


def test_an_archive_is_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"w": torch.zeros(1 << 20)}, path)
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(ModelFileError, match="compressed"):
        as_safetensors(packed, extra="x")


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"\x80\x04N.", b"PK\x03\x04", b"text", pickle.dumps([1])])
def test_what_is_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(ModelFileError):
        as_safetensors(path, extra="x")
    with pytest.raises(ModelFileError, match="cannot be read"):
        as_safetensors(tmp_path / "missing.pth", extra="x")


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    torch.save(TENSORS, path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("local_llms.hub.derived.sync_file", full)
        with pytest.raises(DownloadError, match="no room"):
            as_safetensors(path, extra="x")
    assert not list(cache_dir().rglob("*.safetensors"))


def test_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    torch.save(TENSORS, path)
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingDependency, match=r"local-llms\[some\]"):
        as_safetensors(path, extra="some")


def test_a_peek_shows_names(tmp_path: Path) -> None:
    for zipped in (True, False):
        path = tmp_path / "model.pth"
        torch.save({"blocks.0.att.key.weight": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
        assert b"blocks.0.att." in peek(path)
    path.write_bytes(b"text blocks.0.att.")
    assert peek(path) == b""
    assert peek(tmp_path / "missing") == b""
