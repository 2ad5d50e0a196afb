"""Which cell of the KV cache holds which token of which sequence. Bookkeeping only: it knows no tensors.

A cell has room for the keys and values of one token, in every layer. A sequence is a list of cells; a copy of it refers
to the same ones, so that what sequences share is there once. Where it can, a sequence gets cells that follow one
another: those are read in place, without being gathered first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from local_llms.errors import CacheFull

CellIds = NDArray[np.int64]


class Cells:
    """The cells of a cache, and the sequences in them."""

    def __init__(self, count: int, sequences: int) -> None:
        """``count`` cells for ``sequences`` sequences, all empty."""
        self._references = np.zeros(count, np.int32)
        self._free = count
        self._held: list[CellIds] = [np.empty(0, np.int64) for _ in range(sequences)]

    @property
    def free_cells(self) -> int:
        """Cells that no sequence holds."""
        return self._free

    def of(self, sequence: int) -> CellIds:
        """The cells of a sequence, in the order of its tokens. Not to be changed."""
        return self._held[sequence]

    def take(self, wanted: Sequence[tuple[int, int]]) -> list[CellIds]:
        """Free cells for several sequences, (sequence, how many) each; they belong to nobody yet.

        Raises CacheFull, and takes nothing, where there are too few.
        """
        total = sum(count for _, count in wanted)
        if total > self._free:
            raise CacheFull(
                f"{total} tokens need room in the KV cache, and {self._free} are free of "
                f"{len(self._references)}. Free a sequence, or load with more cache_tokens."
            )
        return [self._run(self._held[sequence], count) for sequence, count in wanted]

    def give_back(self, cells: CellIds) -> None:
        """Let go of cells that were taken or held once."""
        self._references[cells] -= 1
        self._free += int((self._references[cells] == 0).sum())

    def alone(self, sequence: int, first: int) -> NDArray[np.bool_]:
        """Of a sequence's cells from ``first`` on, which ones no other sequence holds."""
        alone: NDArray[np.bool_] = self._references[self._held[sequence][first:]] == 1
        return alone

    def extend(self, sequence: int, first: int, cells: CellIds) -> None:
        """Make a sequence hold its first ``first`` cells and then ``cells``: taken for it, or its own from there on."""
        held = self._held[sequence]
        if first < len(held):
            self.give_back(held[first:][~np.isin(held[first:], cells)])
        self._held[sequence] = np.concatenate((held[:first], cells))

    def share(self, source: int, target: int, length: int) -> None:
        """Make the empty sequence ``target`` hold the first ``length`` cells of another as well."""
        cells = self._held[source][:length]
        self._references[cells] += 1
        self._held[target] = cells

    def cut(self, sequence: int, length: int) -> None:
        """Keep the first ``length`` cells of a sequence."""
        held = self._held[sequence]
        self._held[sequence] = held[:length]
        self.give_back(held[length:])

    def _run(self, held: CellIds, count: int) -> CellIds:
        """``count`` free cells, taken: those after the last held one, and else from the largest gaps."""
        found: list[CellIds] = []
        start = int(held[-1]) + 1 if len(held) else None
        while count:
            if start is None or start >= len(self._references) or self._references[start]:
                start = self._gap(count)
            room = self._references[start : start + count]
            taken = np.flatnonzero(room)
            length = int(taken[0]) if len(taken) else len(room)
            found.append(np.arange(start, start + length))
            self._references[start : start + length] = 1
            self._free -= length
            count -= length
            start = None
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _gap(self, count: int) -> int:
        """A place in the largest gap: where there is room enough, its middle, so that whoever is before can grow."""
        edges = np.flatnonzero(np.diff(np.concatenate(((True,), self._references > 0, (True,)))))
        starts, ends = edges[::2], edges[1::2]
        largest = int(np.argmax(ends - starts))
        start, end = int(starts[largest]), int(ends[largest])
        middle = (start + end) // 2
        return middle if start > 0 and end - middle >= count else start
