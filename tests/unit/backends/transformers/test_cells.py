"""Which cell holds which token: nothing is lost, nothing is held twice by mistake, and runs stay runs."""

from __future__ import annotations

import random

import numpy as np
import pytest

from local_llms.backends.transformers.cells import Cells
from local_llms.errors import CacheFull


def add(cells: Cells, sequence: int, count: int) -> None:
    taken = cells.take([(sequence, count)])[0]
    cells.extend(sequence, len(cells.of(sequence)), taken)


def test_any_order_of_moves_keeps_the_books() -> None:
    """What sequences hold is what was taken for them; the free cells are the rest."""
    chance = random.Random(3)
    cells = Cells(64, 6)
    expected: list[list[int]] = [[] for _ in range(6)]
    for _ in range(3000):
        sequence, other = chance.randrange(6), chance.randrange(6)
        move = chance.choice(("add", "add", "share", "cut", "fail"))
        held = {cell for holding in expected for cell in holding}
        if move in ("add", "fail"):
            count = chance.randint(1, 12)
            if count > 64 - len(held):
                with pytest.raises(CacheFull):
                    cells.take([(sequence, count)])
                continue
            taken = cells.take([(sequence, count)])[0]
            assert len(set(taken.tolist())) == count
            assert not held & set(taken.tolist())
            if move == "fail":
                cells.give_back(taken)
            else:
                cells.extend(sequence, len(expected[sequence]), taken)
                expected[sequence] += taken.tolist()
        elif move == "share" and expected[sequence] and not expected[other] and sequence != other:
            length = chance.randint(1, len(expected[sequence]))
            cells.share(sequence, other, length)
            expected[other] = expected[sequence][:length]
        elif move == "cut":
            length = chance.randint(0, len(expected[sequence]))
            cells.cut(sequence, length)
            del expected[sequence][length:]
        for number, holding in enumerate(expected):
            assert cells.of(number).tolist() == holding
        assert cells.free_cells == 64 - len({cell for holding in expected for cell in holding})


def test_several_at_once_or_none() -> None:
    cells = Cells(10, 3)
    with pytest.raises(CacheFull):
        cells.take([(0, 6), (1, 5)])
    assert cells.free_cells == 10
    first, second = cells.take([(0, 6), (1, 4)])
    assert sorted([*first, *second]) == list(range(10))


def test_sequences_that_grow_in_turns_stay_in_one_run() -> None:
    """Those are read in place."""
    cells = Cells(1024, 8)
    for sequence in range(4):
        add(cells, sequence, 20)
    for _ in range(80):
        for sequence in range(4):
            add(cells, sequence, 1)
    for sequence in range(4):
        assert (np.diff(cells.of(sequence)) == 1).all(), sequence


def test_what_is_held_by_one_alone() -> None:
    cells = Cells(16, 2)
    add(cells, 0, 6)
    cells.share(0, 1, 4)
    assert cells.alone(0, 2).tolist() == [False, False, True, True]
    own = cells.of(0)[4:]
    cells.extend(0, 4, own)
    assert cells.free_cells == 10
