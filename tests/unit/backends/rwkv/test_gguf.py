"""RWKV-6 and RWKV-7 as GGUF go through llama.cpp, which computes what this package's own networks do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from local_llms.backends import choose, llama_cpp
from local_llms.backends.base import Backend, Chunk, LoadOptions
from local_llms.backends.rwkv.batch import Batch
from local_llms.backends.rwkv.network import Network
from local_llms.backends.rwkv.states import States
from local_llms.backends.rwkv.weights import Weights
from local_llms.testing.backend_contract import BackendContract
from tests.unit.backends.rwkv import gguf_files
from tests.unit.backends.rwkv.checkpoints import make

OPTIONS = LoadOptions(context_length=128, max_parallel=4, threads=1)
IDS = [35, 106, 111, 33, 98, 201, 8, 8, 91, 35, 256, 1, 62, 63, 64]


@pytest.fixture(scope="module", params=["6", "7"])
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def path(version: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = make(version, vocabulary=gguf_files.VOCABULARY)
    return gguf_files.write(tmp_path_factory.mktemp("gguf") / f"rwkv{version}.gguf", version, tensors)


@pytest.fixture(scope="module")
def backend(path: Path) -> Iterator[Backend]:
    backend = llama_cpp.load(path, OPTIONS)
    yield backend
    backend.close()


def test_the_info_is_that_of_a_recurrent_model(backend: Backend, path: Path, version: str) -> None:
    info = backend.info
    assert choose(path, None)[0].NAME == "llama_cpp"
    assert info.architecture == f"rwkv{version}"
    assert not info.can_cut
    assert info.cache_tokens == info.context_length * info.max_sequences
    assert info.vocabulary_size == gguf_files.VOCABULARY
    assert info.end_ids == {0}
    assert not info.adds_bos
    assert backend.tokenize("Hé") == [1 + byte for byte in "Hé".encode()]
    assert backend.token_bytes(73) == b"H"


@torch.inference_mode()
def test_logits_are_those_of_our_own_network(backend: Backend, version: str) -> None:
    device = torch.device("cpu")
    tensors = make(version, vocabulary=gguf_files.VOCABULARY)
    network = Network.read(Weights(Path("none"), tensors, device, torch.float32))
    batch = Batch.of([Chunk(0, 0, IDS, "all")], device)
    expected = network.compute(batch, States(network.states).gather([0]), lambda: None).numpy()
    found = backend.decode([Chunk(0, 0, IDS, "all")])
    backend.free(0)
    np.testing.assert_allclose(found, expected, atol=2e-3)


class TestContract(BackendContract):
    """The promises of the protocol."""

    tolerance = 0.01

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, path: Path) -> Callable[[], Backend]:
        return lambda: llama_cpp.load(path, OPTIONS)
