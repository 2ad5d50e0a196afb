"""Every version computes what the rwkv package computes, however tokens are cut and batched."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from local_llms.backends import rwkv
from local_llms.backends.base import Backend, Chunk, LoadOptions
from tests.unit.backends.rwkv.checkpoints import VERSIONS, make, write_ggmf, write_pth, write_safetensors

IDS = [34, 105, 110, 32, 97, 200, 7, 7, 90, 34, 255, 0, 61, 62, 63, 64, 65, 1, 2, 3]
TUNED = "6-tuned"
"""A model whose sequences do not begin with an empty state (BlinkDL/RWKV-LM: state tuning)."""
OPTIONS = LoadOptions(max_parallel=4, threads=1)
CLOSE = {"atol": 2e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("versions")
    for version in VERSIONS:
        write_pth(folder / f"model-{version}.pth", make(version))
    chance = torch.Generator().manual_seed(2)
    states = {f"blocks.{layer}.att.time_state": torch.randn(2, 32, 32, generator=chance) for layer in range(2)}
    write_pth(folder / f"model-{TUNED}.pth", {**make("6"), **states})
    return folder


@pytest.fixture(scope="module")
def reference(folder: Path) -> dict[str, np.ndarray]:
    """Version → what the package says, shape (2, vocabulary)."""
    pytest.importorskip("rwkv")
    script = Path(__file__).with_name("package_logits.py")
    found = {}
    for versions in ((*VERSIONS[:-1], TUNED), VERSIONS[-1:]):
        out = folder / f"{versions[0]}.npy"
        models = [str(folder / f"model-{version}.pth") for version in versions]
        run = subprocess.run(
            [sys.executable, script, json.dumps(IDS), out, *models], capture_output=True, text=True, timeout=120
        )
        assert run.returncode == 0, run.stderr
        found.update(zip(versions, np.load(out), strict=True))
    return found


@pytest.fixture(params=[*VERSIONS, TUNED])
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def backend(version: str, folder: Path) -> Iterator[Backend]:
    backend = rwkv.load(folder / f"model-{version}.pth", OPTIONS)
    yield backend
    backend.close()


@pytest.mark.parametrize("version", VERSIONS, indirect=True)
def test_the_version_is_known(backend: Backend, version: str) -> None:
    assert backend.info.architecture == f"rwkv{version}"
    assert backend.info.parameters == sum(tensor.numel() for tensor in make(version).values())
    assert not backend.info.can_cut


def test_logits_are_those_of_the_rwkv_package(backend: Backend, version: str, reference: dict[str, np.ndarray]) -> None:
    one_by_one, together = reference[version]
    for place, token in enumerate(IDS):
        row = backend.decode([Chunk(0, place, [token])])[0]
    np.testing.assert_allclose(row, one_by_one, **CLOSE)
    np.testing.assert_allclose(backend.decode([Chunk(1, 0, IDS)])[0], together, **CLOSE)


def test_a_long_text_is_the_same_in_pieces_and_token_by_token(backend: Backend) -> None:
    ids = (IDS * 10)[:150]
    rows = [backend.decode([Chunk(0, place, [token])])[0].copy() for place, token in enumerate(ids)]
    whole = backend.decode([Chunk(1, 0, ids, "all")])
    np.testing.assert_allclose(whole, rows, atol=1e-4, rtol=1e-4)
    rest = backend.decode([Chunk(2, 0, ids[:70], "none")])
    assert rest.shape == (0, 256)
    mixed = backend.decode([Chunk(0, 150, IDS[:1]), Chunk(3, 0, ids[:3]), Chunk(2, 70, ids[70:])])
    np.testing.assert_allclose(mixed[1], rows[2], atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(mixed[2], rows[-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("format", ["safetensors", "ggmf"])
@pytest.mark.parametrize("version", VERSIONS, indirect=True)
def test_other_formats_hold_the_same_model(
    backend: Backend, version: str, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # rwkv.cpp computes version 5 with another epsilon in a norm; but for that all is equal.
    monkeypatch.setattr("local_llms.backends.rwkv.checkpoint._GGML_EPSILON", 64e-5)
    write = {"safetensors": write_safetensors, "ggmf": write_ggmf}[format]
    other = rwkv.load(write(tmp_path / f"model.{format}", make(version)), OPTIONS)
    try:
        assert other.info.architecture == backend.info.architecture
        assert other.info.quantization == "F32"
        expected, found = (each.decode([Chunk(0, 0, IDS)])[0] for each in (backend, other))
        np.testing.assert_allclose(found, expected, **CLOSE)
    finally:
        other.close()


@pytest.mark.parametrize(
    ("kind", "bound"), [("F16", 0.01), ("Q8_0", 0.12), ("Q5_1", 0.8), ("Q5_0", 0.8), ("Q4_1", 2.0), ("Q4_0", 1.6)]
)
@pytest.mark.parametrize("version", ["4", "7"], indirect=True)
def test_smaller_number_types_of_rwkv_cpp(version: str, kind: str, bound: float, folder: Path, tmp_path: Path) -> None:
    """Logits differ by less than that part of their standard deviation, and by something."""
    backend = rwkv.load(write_ggmf(tmp_path / "model.bin", make(version), kind), OPTIONS)
    exact = rwkv.load(folder / f"model-{version}.pth", OPTIONS)
    try:
        assert backend.info.quantization == kind
        expected, found = (each.decode([Chunk(0, 0, IDS)])[0] for each in (exact, backend))
        off = np.abs(found - expected).max() / expected.std()
        assert 1e-5 < off < bound
    finally:
        backend.close()
        exact.close()


@pytest.mark.parametrize("version", VERSIONS, indirect=True)
def test_sixteen_bit_weights(version: str, folder: Path, tmp_path: Path) -> None:
    """Whether they are stored so, or made so while loading, which must be the same."""
    stored = write_pth(tmp_path / "stored.pth", make(version), torch.bfloat16)
    backends = [
        rwkv.load(folder / f"model-{version}.pth", OPTIONS),
        rwkv.load(stored, OPTIONS),
        rwkv.load(stored, replace(OPTIONS, dtype="bfloat16")),
    ]
    try:
        assert [backend.info.quantization for backend in backends] == ["F32", "BF16", "BF16"]
        exact, widened, narrow = (backend.decode([Chunk(0, 0, IDS)])[0] for backend in backends)
        for found in (widened, narrow):
            assert 1e-5 < np.abs(found - exact).max() / exact.std() < 0.3
    finally:
        for backend in backends:
            backend.close()
