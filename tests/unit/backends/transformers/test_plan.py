"""Which tokens are computed together: each once, each seeing its own sequence only."""

from __future__ import annotations

import random

import numpy as np

from local_llms.backends.transformers.plan import Group, Span, everything, plan


def visible(group: Group) -> dict[int, list[int]]:
    """Per packed token, the cells that it sees, in the order of the sequence."""
    found: dict[int, list[int]] = {}
    tokens = len(group.rows) // group.blocks
    for block in range(group.blocks):
        for token in range(tokens):
            rank = group.rank[min(block, len(group.rank) - 1)]
            ranks = rank[min(token, len(rank) - 1)]
            seen = (ranks >= 0) & (ranks < group.sees[block, token])
            cells = group.cells[block][seen]
            found[int(group.rows[block * tokens + token])] = cells[np.argsort(ranks[seen])].tolist()
    return found


def spans_of(lengths: list[tuple[int, int]], shared: int = 0) -> list[Span]:
    """Sequences of (cells, new tokens); all begin with the same ``shared`` cells."""
    spans, start, cell = [], 0, shared
    for length, new in lengths:
        cells = np.array([*range(shared), *range(cell, cell + length - shared)])
        cell += length - shared
        spans.append(Span(start, start + new, cells, np.arange(length - new, length) + 1))
        start += new
    return spans


def check(spans: list[Span], groups: list[Group]) -> None:
    found: dict[int, list[int]] = {}
    for group in groups:
        assert not found.keys() & set(group.rows.tolist())
        found |= visible(group)
    expected = {
        span.start + token: span.cells[: span.sees[token]].tolist()
        for span in spans
        for token in range(span.stop - span.start)
    }
    assert found == expected


def test_any_call() -> None:
    chance = random.Random(7)
    for _ in range(300):
        shared = chance.choice((0, 0, 3, 40))
        lengths = []
        for _ in range(chance.randint(1, 9)):
            new = chance.choice((1, 1, 1, 2, 30))
            lengths.append((shared + new + chance.choice((0, 5, 200)), new))
        spans = spans_of(lengths, shared)
        check(spans, plan(spans))
        check(spans, [everything(spans)])


def test_those_with_a_long_common_beginning_read_it_once() -> None:
    groups = plan(spans_of([(1010, 1)] * 16, shared=1000))
    assert len(groups) == 1
    assert groups[0].cells.size == 1000 + 16 * 10


def test_those_with_little_in_common_stand_side_by_side() -> None:
    groups = plan(spans_of([(300, 1)] * 8, shared=5))
    assert [group.blocks for group in groups] == [8]


def test_a_short_sequence_is_not_padded_to_a_long_one() -> None:
    groups = plan(spans_of([(4000, 1), (50, 1), (60, 1)]))
    assert sorted(group.cells.shape for group in groups) == [(1, 4000), (2, 60)]


def test_padding_reads_a_cell_of_its_own() -> None:
    """Numbers that are out of order in one sequence stay there."""
    (group,) = plan(spans_of([(30, 1), (20, 1)]))
    assert set(group.cells[1].tolist()) <= set(range(30, 50))
