"""What is left out of a conversation so that it fits into the context."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from local_llms.errors import ContextOverflow
from local_llms.types import Message

Encode = Callable[[Sequence[Message]], list[int]]


def encode_within(messages: Sequence[Message], encode: Encode, most: int) -> tuple[list[int], tuple[Message, ...]]:
    """Token ids of a conversation without its oldest turns, and the messages that were left out.

    A turn is a user's message and what follows it until the next one, results of tools among it. As few turns go as
    suffice for at most ``most`` tokens. System messages stay, and so does the last turn: where those are too long, what
    comes back is too long.

    ``encode`` makes ids of messages; ContextOverflow of it means that they are too many, and what else it raises passes
    through. It is called about twice for a conversation that
    fits, and a few times more, by the logarithm of the number of turns, for one that does not.
    """
    turns = _turns(messages)
    found: dict[int, list[int]] = {}

    def without(count: int) -> list[int]:
        if count not in found:
            dropped = {number for turn in turns[:count] for number in turn}
            found[count] = encode([message for number, message in enumerate(messages) if number not in dropped])
        return found[count]

    def fits(count: int) -> bool:
        try:
            return len(without(count)) <= most
        except ContextOverflow:
            # So long that it is not even tokenized.
            return False

    low, high = 0, max(len(turns) - 1, 0)
    while low < high:
        middle = (low + high) // 2 if low else 0
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    return without(high), tuple(messages[number] for turn in turns[:high] for number in turn)


def _turns(messages: Sequence[Message]) -> list[list[int]]:
    """The positions of each turn's messages; those of system messages are in none."""
    turns: list[list[int]] = []
    for number, message in enumerate(messages):
        if message.role == "system":
            continue
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(number)
    return turns
