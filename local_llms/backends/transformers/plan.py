"""Which tokens of a call are computed together in attention, and which cells they read. No tensors here.

Three cases, told apart by cost. Several new tokens of one sequence see that sequence's cells. Single tokens of several
sequences are put side by side, each with its own cells, the shorter ones padded. Single tokens whose sequences share
their beginning see the union of their cells, each token its own part of it: what they share is read once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from local_llms.backends.transformers.cells import CellIds

_SIDE_BY_SIDE, _UNION, _GATHER = 0.4, 0.085, 0.15
"""Microseconds per token and cell that it is held against, either way, and per cell that is gathered; measured."""

_PADDING = 2
"""A sequence stands beside one that is up to so many times as long."""


@dataclass(frozen=True, slots=True)
class Span:
    """The new tokens of one sequence: rows ``start`` to ``stop`` of the packed tokens.

    ``cells``: those of the whole sequence, the new tokens' last. ``sees``: per new token, how many of them it sees.
    """

    start: int
    stop: int
    cells: CellIds
    sees: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Group:
    """Tokens that are computed in one piece, as ``blocks`` independent blocks of equally many tokens.

    ``rows``: the packed tokens, block by block, shape (blocks * tokens of a block,).
    ``cells``: what each block reads, shape (blocks, width).
    ``rank``: the place of a cell among those that a token sees, counted from 0; -1 for one that is not of its sequence.
    Shape (blocks, tokens or 1, width).
    ``sees``: how many places a token sees, shape (blocks, tokens).
    """

    blocks: int
    rows: NDArray[np.int64]
    cells: NDArray[np.int64]
    rank: NDArray[np.int64]
    sees: NDArray[np.int64]


def plan(spans: Sequence[Span]) -> list[Group]:
    """The groups of a call. Each of its tokens is in exactly one."""
    groups = [_alone(span) for span in spans if span.stop - span.start > 1]
    families: defaultdict[int, list[Span]] = defaultdict(list)
    for span in spans:
        if span.stop - span.start == 1:
            families[int(span.cells[0])].append(span)
    single: list[Span] = []
    for family in families.values():
        union = _union(family) if len(family) > 1 else None
        if union is None:
            single.extend(family)
        else:
            groups.append(union)
    groups.extend(_side_by_side(part) for part in _by_length(single))
    return groups


def everything(spans: Sequence[Span]) -> Group:
    """All tokens of a call in one block, over the union of their cells."""
    union, places = np.unique(np.concatenate([span.cells for span in spans]), return_inverse=True)
    count = spans[-1].stop
    rank = np.full((1, count, len(union)), -1)
    start = 0
    for span in spans:
        stop = start + len(span.cells)
        rank[0, span.start : span.stop, places[start:stop]] = np.arange(stop - start)[:, None]
        start = stop
    return Group(1, np.arange(count), union[None], rank, np.concatenate([span.sees for span in spans])[None])


def _alone(span: Span) -> Group:
    width = len(span.cells)
    rows = np.arange(span.start, span.stop)
    return Group(1, rows, span.cells[None], np.arange(width)[None, None], span.sees[None])


def _by_length(spans: Iterable[Span]) -> Iterable[list[Span]]:
    part: list[Span] = []
    for span in sorted(spans, key=lambda span: -len(span.cells)):
        if part and len(part[0].cells) > _PADDING * len(span.cells) + 64:
            yield part
            part = []
        part.append(span)
    if part:
        yield part


def _side_by_side(spans: Sequence[Span]) -> Group:
    width = len(spans[0].cells)
    # What pads a sequence is a cell of its own: whatever is wrong with another's numbers cannot reach it.
    cells = np.stack([np.concatenate((span.cells, span.cells[:1].repeat(width - len(span.cells)))) for span in spans])
    rows = np.array([span.start for span in spans])
    return Group(len(spans), rows, cells, np.arange(width)[None, None], np.stack([span.sees for span in spans]))


def _union(family: Sequence[Span]) -> Group | None:
    """The group of sequences that begin in one cell; None where they share too little."""
    own = np.concatenate([span.cells for span in family])
    union, places = np.unique(own, return_inverse=True)
    tokens, longest = len(family), max(len(span.cells) for span in family)
    if len(union) * (tokens * _UNION + _GATHER) > tokens * longest * (_SIDE_BY_SIDE + _GATHER):
        return None
    rank = np.full((1, tokens, len(union)), -1)
    start = 0
    for number, span in enumerate(family):
        stop = start + len(span.cells)
        rank[0, number, places[start:stop]] = np.arange(stop - start)
        start = stop
    rows = np.array([span.start for span in family])
    return Group(1, rows, union[None], rank, np.concatenate([span.sees for span in family])[None])
