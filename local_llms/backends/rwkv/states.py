"""The recurrent states of all sequences: what takes the place of a KV cache.

A state has one size, however many tokens its sequence has read. The sequences that decode together lie side by side in
one block of memory, so that a step reads and writes it in place; it is only copied when another set of sequences is to
be computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class StateShape:
    """What one sequence keeps, all float32.

    Per layer: of the last token, the input of the time mix and of the channel mix (``width`` numbers each), and
    ``memory``, the state of the recurrence. ``initial``: that of an empty sequence, shape (layers, *memory).
    """

    layers: int
    width: int
    memory: tuple[int, ...]
    initial: torch.Tensor

    @property
    def size(self) -> int:
        """Bytes of one state."""
        return 4 * self.layers * (2 * self.width + math.prod(self.memory))


@dataclass(frozen=True, slots=True)
class Block:
    """The states of some sequences: ``shift`` (layers, sequences, 2, width), ``memory`` (layers, sequences, …)."""

    shift: torch.Tensor
    memory: torch.Tensor

    @property
    def size(self) -> int:
        """Bytes."""
        return 4 * (self.shift.numel() + self.memory.numel())

    def part(self, place: int) -> Block:
        """A copy of one sequence's state."""
        return Block(self.shift[:, place : place + 1].clone(), self.memory[:, place : place + 1].clone())


class States:
    """States by the number of their sequence; a sequence without one is empty."""

    def __init__(self, shape: StateShape) -> None:
        self._shape = shape
        self._apart: dict[int, Block] = {}
        self._together: list[int] = []
        self._block = self._empty(0)

    @property
    def size(self) -> int:
        """Bytes of all states that are held."""
        return self._block.size + sum(block.size for block in self._apart.values())

    def gather(self, sequences: Sequence[int]) -> Block:
        """The states of different sequences, in that order, to be computed with: what is written there stays."""
        wanted = list(sequences)
        if wanted == self._together:
            return self._block
        block = self._empty(len(wanted))
        for place, number in enumerate(wanted):
            if number in self._apart:
                found, at = self._apart.pop(number), 0
            elif number in self._together:
                found, at = self._block, self._together.index(number)
            else:
                block.memory[:, place] = self._shape.initial
                continue
            block.shift[:, place] = found.shift[:, at]
            block.memory[:, place] = found.memory[:, at]
        for place, number in enumerate(self._together):
            if number not in wanted:
                self._apart[number] = self._block.part(place)
        self._together, self._block = wanted, block
        return block

    def copy(self, source: int, target: int) -> None:
        """Give ``target``, which is empty, a state like that of ``source``."""
        if source in self._apart:
            self._apart[target] = self._apart[source].part(0)
        else:
            self._apart[target] = self._block.part(self._together.index(source))

    def free(self, sequence: int) -> None:
        """Empty a sequence."""
        if sequence in self._together:
            self.gather([number for number in self._together if number != sequence])
        self._apart.pop(sequence, None)

    def _empty(self, count: int) -> Block:
        shape, device = self._shape, self._shape.initial.device
        shift = torch.zeros(shape.layers, count, 2, shape.width, device=device)
        return Block(shift, torch.empty(shape.layers, count, *shape.memory, device=device))
