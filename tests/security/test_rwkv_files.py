"""Damaged and hostile RWKV files: an error of ours each time, and the process lives."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from local_llms.backends import choose, rwkv
from local_llms.backends.base import Chunk, LoadOptions
from local_llms.errors import ModelFileError
from local_llms.models import load_model
from tests.unit.backends.rwkv.checkpoints import make, write_ggmf, write_pth, write_safetensors

OPTIONS = LoadOptions(max_parallel=1, threads=1)
WRITERS = {"ggmf": write_ggmf, "pth": write_pth, "safetensors": write_safetensors}


@pytest.fixture(autouse=True)
def _a_home_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(tmp_path / "home"))


@pytest.fixture(params=["4", "7"])
def version(request: pytest.FixtureRequest) -> str:
    return request.param


def refused(path: Path) -> bool:
    """Whether a file is refused, with no other error than ours; one that is not must compute."""
    try:
        backend = rwkv.load(path, OPTIONS)
    except ModelFileError:
        return True
    try:
        backend.decode([Chunk(0, 0, [1, 2, 3])])
    finally:
        backend.close()
    return False


@pytest.mark.parametrize("format", WRITERS)
def test_a_truncated_file_is_refused_wherever_it_ends(format: str, version: str, tmp_path: Path) -> None:
    content = WRITERS[format](tmp_path / "sound", make(version, layers=1)).read_bytes()
    chance = random.Random(5)
    path = tmp_path / f"model.{format}"
    for length in [0, 1, 4, 23, 24, 30, *chance.sample(range(len(content)), 20), len(content) - 1]:
        path.write_bytes(content[:length])
        assert refused(path), length
    path.write_bytes(content)
    assert not refused(path)


@pytest.mark.parametrize("format", WRITERS)
def test_a_changed_byte_is_refused_or_harmless(format: str, version: str, tmp_path: Path) -> None:
    content = WRITERS[format](tmp_path / "sound", make(version, layers=1)).read_bytes()
    chance = random.Random(6)
    path = tmp_path / f"model.{format}"
    count = 0
    for number in range(40):
        damaged = bytearray(content)
        # Half of them where tensors are described.
        place = chance.randrange((56 if format == "ggmf" else 400) if number % 2 else len(content))
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        count += refused(path)
    # Weights of a .pth have checksums.
    assert count >= (35 if format == "pth" else 10), count


def header(**changes: int) -> bytes:
    fields = {"magic": 0x67676D66, "version": 101, "vocabulary": 256, "width": 64, "layers": 1, "kind": 0, **changes}
    return struct.pack("<6I", *fields.values())


def tensor(name: bytes = b"emb.weight", shape: tuple[int, ...] = (64, 256), kind: int = 0, data: bytes = b"") -> bytes:
    return struct.pack(f"<3I{len(shape)}I", len(shape), len(name), kind, *shape) + name + data


EMBEDDING = tensor(data=bytes(4 * 64 * 256))
HOSTILE = {
    "no tensors": header(),
    "another version": header(version=99) + EMBEDDING,
    "another magic": header(magic=1) + EMBEDDING,
    "a removed number type": header(kind=4) + EMBEDDING,
    "an unknown number type": header(kind=77) + EMBEDDING,
    "no layers": header(layers=0) + EMBEDDING,
    "layers without end": header(layers=0xFFFFFFFF) + EMBEDDING,
    "another width": header(width=65) + EMBEDDING,
    "another vocabulary": header(vocabulary=1 << 31) + EMBEDDING,
    "a tensor twice": header() + EMBEDDING + EMBEDDING,
    "a tensor of no dimension": header() + tensor(shape=()),
    "a tensor of many dimensions": header() + tensor(shape=(1,) * 9),
    "a huge tensor": header() + tensor(shape=(0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)),
    "an empty tensor": header() + tensor(shape=(0, 256)),
    "a long name": header() + tensor(name=b"x" * 5000, data=bytes(4 * 64 * 256)),
    "no name": header() + tensor(name=b"", data=bytes(4 * 64 * 256)),
    "a name that is no text": header() + tensor(name=b"\xff\xfe", data=bytes(4 * 64 * 256)),
    "an old quantized tensor": header(version=100) + tensor(kind=2, data=bytes(18 * 512)),
    "a removed tensor type": header() + tensor(kind=5, data=bytes(18 * 512)),
    "rows that are no blocks": header() + tensor(shape=(33, 256), kind=2, data=bytes(18 * 512)),
    "only an embedding": header() + EMBEDDING,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_of_rwkv_cpp(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(ModelFileError):
        rwkv.load(path, OPTIONS)


def test_sound_files_but_for_one_thing(version: str, tmp_path: Path) -> None:
    old = write_ggmf(tmp_path / "old.bin", make(version), "Q8_0", file_version=100)
    with pytest.raises(ModelFileError, match="before May 2023"):
        rwkv.load(old, OPTIONS)
    twice = write_ggmf(tmp_path / "twice.bin", make(version))
    twice.write_bytes(twice.read_bytes() + EMBEDDING)
    with pytest.raises(ModelFileError, match=r"emb\.weight comes twice"):
        rwkv.load(twice, OPTIONS)
    layers = write_ggmf(tmp_path / "layers.bin", make(version))
    layers.write_bytes(header(layers=1) + layers.read_bytes()[24:])
    with pytest.raises(ModelFileError, match="another number of them"):
        rwkv.load(layers, OPTIONS)


WRONG: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "a weight is missing": lambda t: t.pop("blocks.0.att.key.weight"),
    "a norm is missing": lambda t: t.pop("ln_out.bias"),
    "a layer is missing": lambda t: [t.pop(name) for name in list(t) if name.startswith("blocks.0.ln")],
    "a weight has another shape": lambda t: t.update({"blocks.1.ffn.value.weight": torch.ones(64, 95)}),
    "a weight has integers": lambda t: t.update({"blocks.1.att.key.weight": torch.ones(64, 64, dtype=torch.int32)}),
    "there is one too many": lambda t: t.update({"blocks.1.att.surprise": torch.ones(4)}),
    "the embedding is a number": lambda t: t.update({"emb.weight": torch.tensor(1.0)}),
    "the embedding is empty": lambda t: t.update({"emb.weight": torch.ones(0, 64)}),
    "the head is narrower": lambda t: t.update({"head.weight": torch.ones(256, 32)}),
    "nothing is left": lambda t: [t.pop(name) for name in list(t) if name.startswith("blocks.")],
    "heads do not divide the width": lambda t: t.update(
        {"blocks.0.att.r_k": torch.ones(3, 21), "blocks.0.att.time_mix_k": torch.ones(3)}
    ),
}


@pytest.mark.parametrize("format", ["pth", "safetensors"])
@pytest.mark.parametrize("name", WRONG)
def test_a_checkpoint_that_lacks_something_or_has_too_much(
    name: str, format: str, version: str, tmp_path: Path
) -> None:
    tensors = make(version)
    WRONG[name](tensors)
    path = WRITERS[format](tmp_path / f"model.{format}", tensors)
    with pytest.raises(ModelFileError):
        rwkv.load(path, OPTIONS)


def test_weights_rearranged_by_the_rwkv_package_are_refused(tmp_path: Path) -> None:
    torch.save({**make("4"), "_strategy": "cpu fp32", "_version": "0.7"}, tmp_path / "model.pth")
    with pytest.raises(ModelFileError, match=r"original \.pth"):
        rwkv.load(tmp_path / "model.pth", OPTIONS)


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (os.environ["LOCAL_LLMS_HOME"] + "-evil",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({**make("7"), "x": Evil()}, path, _use_new_zipfile_serialization=zipped)
    assert choose(path, None)[0].NAME == "rwkv"
    with pytest.raises(ModelFileError, match="could run code"):
        load_model(path, template="plain")
    assert not Path(os.environ["LOCAL_LLMS_HOME"] + "-evil").exists()
