"""Where names are looked up while a template runs."""

from __future__ import annotations

from local_llms.prompts.interpreter.budget import Budget
from local_llms.prompts.interpreter.values import Undefined, Value


class Scope:
    """Names and their values; what is not here is looked up further out."""

    __slots__ = ("budget", "names", "outer")

    def __init__(self, names: dict[str, Value], outer: Scope | None, budget: Budget) -> None:
        self.names = names
        self.outer = outer
        self.budget = budget

    def inner(self) -> Scope:
        """A new scope inside this one."""
        return Scope({}, self, self.budget)

    def look_up(self, name: str) -> Value:
        """The value of the name; Undefined where it has none."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.outer
        return Undefined(f"{name!r} is undefined")
