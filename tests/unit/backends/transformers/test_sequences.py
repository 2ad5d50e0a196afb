"""A call that fails changes nothing: neither what sequences hold, nor the cells that are free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from local_llms.backends.base import BackendInfo, Chunk  # noqa: E402 - after the check that torch is there
from local_llms.backends.transformers.attention import KeyValueStore  # noqa: E402
from local_llms.backends.transformers.parts import LayerShape, Placement, causal  # noqa: E402
from local_llms.backends.transformers.sequences import Sequences  # noqa: E402
from local_llms.errors import CacheFull, DecodeError  # noqa: E402

CELLS = 32


class Toy:
    """One layer without weights: a row is the mean of what the token sees."""

    module = torch.nn.Linear(1, 1)
    layers = (LayerShape(1, 4, 4),)
    vocabulary_size = 4

    def __init__(self) -> None:
        self.failure: BaseException | None = None

    def place(self, held: Sequence[int], new: Sequence[int]) -> Placement:
        return causal(held, new)

    def settled(self, ids: Sequence[int]) -> bool:
        return True

    def forward(self, ids: Any, positions: Any, attention: Any, rows: Any) -> Any:
        values = torch.nn.functional.one_hot(ids, 4).float()[:, None]
        seen = attention.attend(0, torch.zeros_like(values), torch.zeros_like(values), values, 1.0)
        if self.failure is not None:
            raise self.failure
        return seen[:, 0][rows]


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def sequences(toy: Toy) -> Sequences:
    info = BackendInfo("toy", "toy", 0, 4, CELLS, CELLS, CELLS, 4, CELLS, None, frozenset(), False)
    return Sequences(toy, info, KeyValueStore(CELLS, toy.layers, torch.float32, torch.device("cpu")))


def free_cells(sequences: Sequences) -> int:
    return sequences._cells.free_cells


@pytest.mark.parametrize(
    ("failure", "expected"),
    [(RuntimeError("no memory"), DecodeError), (DecodeError("stopped"), DecodeError), (KeyError("a bug"), KeyError)],
)
def test_a_failure_leaves_no_trace(
    toy: Toy, sequences: Sequences, failure: BaseException, expected: type[BaseException]
) -> None:
    sequences.decode([Chunk(0, 0, [1, 2, 3])])
    toy.failure = failure
    for _ in range(20):
        with pytest.raises(expected):
            sequences.decode([Chunk(0, 3, [0, 0]), Chunk(1, 0, [2, 2, 2])])
    assert free_cells(sequences) == CELLS - 3
    toy.failure = None
    rows = sequences.decode([Chunk(0, 3, [0, 0]), Chunk(1, 0, [2, 2, 2])])
    np.testing.assert_allclose(rows, [[0.4, 0.2, 0.2, 0.2], [0, 0, 1, 0]], atol=1e-6)


def test_a_full_cache_and_what_is_shared(sequences: Sequences) -> None:
    sequences.decode([Chunk(0, 0, [1] * 20, "none")])
    for target in (1, 2, 3):
        sequences.copy(0, target, 20)
    assert free_cells(sequences) == CELLS - 20
    with pytest.raises(CacheFull):
        sequences.decode([Chunk(number, 20, [2] * 4) for number in range(4)])
    assert free_cells(sequences) == CELLS - 20
    rows = sequences.decode([Chunk(number, 20, [number] * 3) for number in range(4)])
    assert rows.shape == (4, 4)
    sequences.free(0)
    assert free_cells(sequences) == 3
    for number in (1, 2, 3):
        sequences.free(number)
    assert free_cells(sequences) == CELLS
