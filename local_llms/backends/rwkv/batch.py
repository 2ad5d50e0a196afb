"""The new tokens of several sequences, laid out so that one pass over the network computes them all.

Everything but two things works on each token alone: the token shift looks at the token before, and the recurrence goes
through the tokens of a sequence in their order. So the tokens lie as rows **time by time**: the first token of each
sequence, then the second of each that has one, and so on, the sequences with more tokens in front. Then the rows of one
time are consecutive, the sequences that go on are always the first ones, and no padding is needed. A decode step is the
case of one time, reading a prompt the case of one sequence, and any mixture is both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from local_llms.backends.base import Chunk


@dataclass(frozen=True, slots=True)
class Stretch:
    """``times`` consecutive times at which the same ``count`` sequences have tokens: rows from ``first`` on."""

    first: int
    times: int
    count: int

    @property
    def rows(self) -> slice:
        """The rows, ``times * count`` of them, time by time."""
        return slice(self.first, self.first + self.times * self.count)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows for chunks in any order.

    - ``order``: position in the batch → index of the chunk; longer chunks come first.
    - ``tokens``: shape (rows,), token ids.
    - ``stretches``: all times, in order.
    - ``outputs``: rows whose logits are wanted, in the order of the chunks.
    """

    order: list[int]
    tokens: torch.Tensor
    stretches: list[Stretch]
    outputs: list[int]
    _before: torch.Tensor | None
    _last: torch.Tensor | None

    @classmethod
    def of(cls, chunks: Sequence[Chunk], device: torch.device) -> Batch:
        """Lay out chunks, none of them empty."""
        # Stable, so that sequences which decode together stay where they are from step to step.
        order = sorted(range(len(chunks)), key=lambda index: -len(chunks[index].tokens))
        lengths = np.array([len(chunks[index].tokens) for index in order])
        counts = (lengths[:, None] > np.arange(lengths[0])).sum(axis=0)
        starts = np.concatenate([[0], np.cumsum(counts)])
        tokens = np.empty(starts[-1], np.int64)
        rows_of: dict[int, np.ndarray] = {}
        before = np.empty(starts[-1], np.int64)
        for place, index in enumerate(order):
            rows = starts[: lengths[place]] + place
            rows_of[index] = rows
            tokens[rows] = chunks[index].tokens
            before[rows[0]] = place
            before[rows[1:]] = len(order) + rows[:-1]
        outputs: list[int] = []
        for index, chunk in enumerate(chunks):
            if chunk.logits != "none":
                rows = rows_of[index]
                outputs.extend(int(row) for row in (rows if chunk.logits == "all" else rows[-1:]))
        single = len(counts) == 1
        last = np.array([rows_of[index][-1] for index in order])
        return cls(
            order=order,
            tokens=torch.from_numpy(tokens).to(device),
            stretches=_stretches(counts, starts),
            outputs=outputs,
            _before=None if single else torch.from_numpy(before).to(device),
            _last=None if single else torch.from_numpy(last).to(device),
        )

    def shifted(self, held: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """For each row of ``x``, shape (rows, width), the row of the token before it in its sequence.

        ``held``: what each sequence kept of its last token, shape (sequences, width), in the order of the batch.
        """
        return held if self._before is None else torch.cat([held, x]).index_select(0, self._before)

    def last(self, x: torch.Tensor) -> torch.Tensor:
        """The row of each sequence's last token, shape (sequences, width)."""
        return x if self._last is None else x.index_select(0, self._last)


def _stretches(counts: np.ndarray, starts: np.ndarray) -> list[Stretch]:
    found: list[Stretch] = []
    begin = 0
    for time in range(1, len(counts) + 1):
        if time == len(counts) or counts[time] != counts[begin]:
            found.append(Stretch(int(starts[begin]), time - begin, int(counts[begin])))
            begin = time
    return found
