"""What a sequence keeps has one size, however many tokens it has read; and whole models are kept apart."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from local_llms.backends import rwkv
from local_llms.backends.base import Backend, Chunk, LoadOptions
from local_llms.errors import DecodeError
from tests.unit.backends.rwkv.checkpoints import make, write_pth

OPTIONS = LoadOptions(max_parallel=4, threads=1)


@pytest.fixture(scope="module", params=["4", "7"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    path = write_pth(tmp_path_factory.mktemp("states") / "model.pth", make(request.param, layers=1))
    backend = rwkv.load(path, OPTIONS)
    yield backend
    backend.close()


@pytest.fixture(autouse=True)
def _empty(backend: Backend) -> None:
    for number in range(backend.info.max_sequences):
        backend.free(number)


def read(backend: Backend, sequence: int, count: int, start: int = 0) -> None:
    while start < count:
        size = min(backend.info.batch_tokens, count - start)
        backend.decode([Chunk(sequence, start, [(start + place) % 251 for place in range(size)], "none")])
        start += size


def test_a_hundred_thousand_tokens_need_no_more_memory_than_a_hundred(backend: Backend) -> None:
    assert backend.state_bytes == 0
    read(backend, 0, 100)
    size = backend.state_bytes
    read(backend, 0, 100_000, start=100)
    assert backend.state_bytes == size > 0
    assert backend.info.context_length >= 100_000
    assert np.isfinite(backend.decode([Chunk(0, 100_000, [5])])).all()


def test_sequences_cost_one_state_each_wherever_they_are(backend: Backend) -> None:
    read(backend, 0, 10)
    one = backend.state_bytes
    backend.copy(0, 1, 10)
    backend.copy(0, 2, 10)
    assert backend.state_bytes == 3 * one
    backend.decode([Chunk(1, 10, [1]), Chunk(0, 10, [2])])
    assert backend.state_bytes == 3 * one
    for number in (1, 0, 2):
        backend.free(number)
    assert backend.state_bytes == 0


def test_a_copy_does_not_change_while_its_source_goes_on(backend: Backend) -> None:
    read(backend, 0, 10)
    backend.copy(0, 1, 10)
    for place in range(10, 14):
        backend.decode([Chunk(0, place, [place])])
    expected = alone(backend, [*range(10), 7])
    np.testing.assert_allclose(backend.decode([Chunk(1, 10, [7])])[0], expected, atol=1e-4, rtol=1e-4)


def test_sequences_join_and_leave_in_any_order(backend: Backend) -> None:
    """Each always computes what it would alone."""
    chance = random.Random(3)
    tokens: dict[int, list[int]] = {}
    for _ in range(60):
        move = chance.random()
        if move < 0.15 and tokens:
            number = chance.choice(list(tokens))
            backend.free(number)
            del tokens[number]
        elif move < 0.3 and tokens:
            source, target = chance.choice(list(tokens)), chance.randrange(8)
            if target not in tokens:
                backend.copy(source, target, len(tokens[source]))
                tokens[target] = list(tokens[source])
        else:
            chosen = chance.sample(range(8), chance.randint(1, 5))
            new = {number: [chance.randrange(256) for _ in range(chance.choice([1, 1, 1, 2, 9]))] for number in chosen}
            rows = backend.decode([Chunk(n, len(tokens.get(n, [])), ids) for n, ids in new.items()]).copy()
            for row, (number, ids) in zip(rows, new.items(), strict=True):
                tokens[number] = [*tokens.get(number, []), *ids]
                np.testing.assert_allclose(row, alone(backend, tokens[number]), atol=1e-4, rtol=1e-4)


def alone(backend: Backend, ids: list[int]) -> np.ndarray:
    last = backend.info.max_sequences - 1
    row = backend.decode([Chunk(last, 0, ids)])[0].copy()
    backend.free(last)
    return row


def test_a_failure_empties_the_sequences_of_the_call_only(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    read(backend, 0, 10)
    read(backend, 1, 10)
    expected = alone(backend, [*range(10), 7])

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("local_llms.backends.rwkv.batch.Batch.shifted", fail)
        with pytest.raises(DecodeError, match="out of memory"):
            backend.decode([Chunk(0, 10, [7])])
    with pytest.raises(ValueError):
        backend.decode([Chunk(0, 10, [7])])
    np.testing.assert_allclose(backend.decode([Chunk(1, 10, [7])])[0], expected, atol=1e-4, rtol=1e-4)


def test_versions_4_and_7_in_one_process(tmp_path: Path) -> None:
    four = rwkv.load(write_pth(tmp_path / "four.pth", make("4")), OPTIONS)
    seven = rwkv.load(write_pth(tmp_path / "seven.pth", make("7")), OPTIONS)
    ids = [3, 1, 4, 1, 5]
    try:
        before = [backend.decode([Chunk(0, 0, ids)])[0].copy() for backend in (four, seven)]
        for place in range(3):
            for backend in (four, seven):
                backend.decode([Chunk(0, 5 + place, [9])])
        after = [backend.decode([Chunk(1, 0, ids)])[0] for backend in (four, seven)]
        np.testing.assert_allclose(after, before, atol=1e-5)
        assert {four.info.architecture, seven.info.architecture} == {"rwkv4", "rwkv7"}
    finally:
        four.close()
        seven.close()
