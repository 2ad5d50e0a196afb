"""The variable ``loop`` of a for loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from local_llms.prompts.interpreter.budget import Budget, Failure
from local_llms.prompts.interpreter.values import Callee, Function, Undefined, Value, equal

Again = Callable[[Budget, Value], str]
"""Runs the loop over other values, one level deeper."""


class Loop(Callee):
    """Where a loop stands. Calling it runs a recursive loop over other values."""

    __slots__ = ("_again", "_depth", "_items", "_seen", "place")

    def __init__(self, items: Sequence[Value], depth: int, again: Again | None) -> None:
        super().__init__("loop")
        self._items = items
        self._depth = depth
        self._again = again
        self._seen: tuple[Value, ...] | None = None
        self.place = 0

    def invoke(self, budget: Budget, arguments: Sequence[Value], named: Mapping[str, Value]) -> Value:
        """Run the loop over other values. Raises Failure where it is not recursive."""
        if self._again is None:
            raise Failure("only a loop that is marked recursive can be called")
        if len(arguments) != 1 or named:
            raise Failure("a loop is called with the values to run over")
        return self._again(budget, arguments[0])

    def attribute(self, name: str) -> Value:
        """``loop.name``."""
        if name == "cycle":
            return Function("loop.cycle", self._cycle)
        if name == "changed":
            return Function("loop.changed", self._changed)
        count = len(self._items)
        facts: dict[str, Value] = {
            "index": self.place + 1,
            "index0": self.place,
            "revindex": count - self.place,
            "revindex0": count - self.place - 1,
            "first": self.place == 0,
            "last": self.place == count - 1,
            "length": count,
            "depth": self._depth + 1,
            "depth0": self._depth,
            "previtem": self._item(self.place - 1),
            "nextitem": self._item(self.place + 1),
        }
        return facts.get(name, Undefined(f"loop has no attribute {name!r}"))

    def _item(self, place: int) -> Value:
        if 0 <= place < len(self._items):
            return self._items[place]
        return Undefined("there is no such item in the loop")

    def _cycle(self, budget: Budget, /, *values: Value) -> Value:
        if not values:
            raise Failure("loop.cycle needs the values to go through")
        return values[self.place % len(values)]

    def _changed(self, budget: Budget, /, *values: Value) -> Value:
        if self._seen is not None and equal(budget, self._seen, values):
            return False
        self._seen = values
        return True
