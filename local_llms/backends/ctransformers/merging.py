"""Byte-pair merging: neighbours become one piece, the best pair of the whole text first."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

Rank = Callable[[bytes], float | None]
"""The rank of a piece, lower is better; None where the vocabulary does not have it."""


def merge(parts: Sequence[bytes], rank: Rank) -> list[bytes]:
    """Merge neighbours as long as two of them make a piece that has a rank; of equals the leftmost goes first.

    Takes n log n steps for n parts.
    """
    pieces = list(parts)
    before = [number - 1 for number in range(len(pieces))]
    after = [number + 1 for number in range(len(pieces))]
    queue: list[tuple[float, int, bytes]] = []

    def offer(left: int) -> None:
        right = after[left] if left >= 0 else len(pieces)
        if right < len(pieces):
            both = pieces[left] + pieces[right]
            place = rank(both)
            if place is not None:
                heapq.heappush(queue, (place, left, both))

    for number in range(len(pieces)):
        offer(number)
    while queue:
        _, left, both = heapq.heappop(queue)
        right = after[left]
        # What was merged since the pair was offered makes it void.
        if right >= len(pieces) or not pieces[left] or pieces[left] + pieces[right] != both:
            continue
        pieces[left], pieces[right] = both, b""
        after[left] = after[right]
        if after[left] < len(pieces):
            before[after[left]] = left
        offer(before[left])
        offer(left)
    return [piece for piece in pieces if piece]
