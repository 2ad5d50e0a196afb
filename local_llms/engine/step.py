"""What the backend has to do next, as the scheduler decides it."""

from __future__ import annotations

from dataclasses import dataclass, field

from local_llms.backends.base import Adapter, Chunk
from local_llms.engine.request import Sequence


@dataclass(frozen=True, slots=True)
class Copy:
    """Let the empty sequence ``target`` begin with the first ``length`` tokens of ``source``."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class Free:
    """Empty a sequence."""

    number: int


@dataclass(slots=True)
class Step:
    """What the backend has to do next: the moves in their order, then one decode of all chunks of each adapter.

    ``sequences[i]`` is the request of ``chunks[i]``.
    """

    moves: list[Copy | Free] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    sequences: list[Sequence] = field(default_factory=list)

    def by_adapter(self) -> list[Step]:
        """The same without moves, in steps of one decode each: all of its requests have one adapter."""
        parts: dict[Adapter | None, Step] = {}
        for chunk, sequence in zip(self.chunks, self.sequences, strict=True):
            part = parts.setdefault(sequence.adapter, Step())
            part.chunks.append(chunk)
            part.sequences.append(sequence)
        return list(parts.values())
