"""Macros: pieces of a template that can be called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from local_llms.prompts.interpreter.budget import Budget, Failure
from local_llms.prompts.interpreter.scope import Scope
from local_llms.prompts.interpreter.values import Callee, Undefined, Value


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a macro takes. ``defaults`` are those of the last parameters, computed at each call.

    ``takes_more``, ``takes_names``, ``takes_caller``: its body uses ``varargs``, ``kwargs``, ``caller``.
    """

    names: tuple[str, ...]
    defaults: tuple[Callable[[Scope], Value], ...]
    takes_more: bool
    takes_names: bool
    takes_caller: bool


class Macro(Callee):
    """A macro, with the scope in which it was defined."""

    __slots__ = ("_body", "_parameters", "_scope")

    def __init__(self, name: str, parameters: Parameters, body: Callable[[Scope], str], scope: Scope) -> None:
        super().__init__(name)
        self._parameters = parameters
        self._body = body
        self._scope = scope

    def invoke(self, budget: Budget, arguments: Sequence[Value], named: Mapping[str, Value]) -> Value:
        """The text that the macro writes. Raises Failure where the arguments do not fit."""
        inside = self._scope.inner()
        self._bind(inside, arguments, dict(named))
        return self._body(inside)

    def attribute(self, name: str) -> Value:
        """``macro.name`` and ``macro.arguments``."""
        if name == "name":
            return self.name
        if name == "arguments":
            return self._parameters.names
        return super().attribute(name)

    def _bind(self, inside: Scope, arguments: Sequence[Value], named: dict[str, Value]) -> None:
        takes = self._parameters
        if len(arguments) > len(takes.names) and not takes.takes_more:
            raise Failure(f"the macro {self.name} takes {len(takes.names)} arguments, not {len(arguments)}")
        first_default = len(takes.names) - len(takes.defaults)
        for place, name in enumerate(takes.names):
            if place < len(arguments):
                inside.names[name] = arguments[place]
            elif name in named:
                inside.names[name] = named.pop(name)
            elif place >= first_default:
                inside.names[name] = takes.defaults[place - first_default](inside)
            else:
                inside.names[name] = Undefined(f"the argument {name!r} of the macro {self.name} was not given")
        if takes.takes_caller and "caller" not in takes.names:
            inside.names["caller"] = named.pop("caller", Undefined("the macro was not called by a call block"))
        if takes.takes_names:
            inside.names["kwargs"] = named
        elif named:
            raise Failure(f"the macro {self.name} takes no argument {next(iter(named))!r}")
        if takes.takes_more:
            inside.names["varargs"] = tuple(arguments[len(takes.names) :])
