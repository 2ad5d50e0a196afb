"""What stands behind ``is``: the tests of templates."""

from __future__ import annotations

from collections.abc import Callable

from local_llms.prompts.interpreter.budget import Budget, Failure
from local_llms.prompts.interpreter.operators import compare, modulo
from local_llms.prompts.interpreter.values import CONTAINERS, Callee, Undefined, Value, expect_text

Condition = Callable[..., bool]


def _comparison(operator: str) -> Condition:
    def test(budget: Budget, value: Value, other: Value, /) -> bool:
        return compare(budget, operator, value, other)

    return test


def _of_kind(*types: type) -> Condition:
    def test(budget: Budget, value: Value, /) -> bool:
        return isinstance(value, types)

    return test


def _being(constant: Value) -> Condition:
    def test(budget: Budget, value: Value, /) -> bool:
        return value is constant

    return test


def _defined(budget: Budget, value: Value, /) -> bool:
    return not isinstance(value, Undefined)


def _integer(budget: Budget, value: Value, /) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _odd(budget: Budget, value: Value, /) -> bool:
    return modulo(budget, value, 2) == 1


def _even(budget: Budget, value: Value, /) -> bool:
    return modulo(budget, value, 2) == 0


def _divisible_by(budget: Budget, value: Value, number: Value, /) -> bool:
    return modulo(budget, value, number) == 0


def _same_as(budget: Budget, value: Value, other: Value, /) -> bool:
    return value is other


def _upper(budget: Budget, value: Value, /) -> bool:
    return expect_text(value, "what is upper").isupper()


def _lower(budget: Budget, value: Value, /) -> bool:
    return expect_text(value, "what is lower").islower()


def condition(name: str) -> Condition:
    """The test of that name. Raises Failure where there is none."""
    if name not in CONDITIONS:
        raise Failure(f"there is no test {name!r}")
    return CONDITIONS[name]


CONDITIONS: dict[str, Condition] = {
    "!=": _comparison("ne"),
    "<": _comparison("lt"),
    "<=": _comparison("lteq"),
    "==": _comparison("eq"),
    ">": _comparison("gt"),
    ">=": _comparison("gteq"),
    "boolean": _of_kind(bool),
    "callable": _of_kind(Callee),
    "defined": _defined,
    "divisibleby": _divisible_by,
    "eq": _comparison("eq"),
    "equalto": _comparison("eq"),
    "even": _even,
    "false": _being(False),
    "float": _of_kind(float),
    "ge": _comparison("gteq"),
    "greaterthan": _comparison("gt"),
    "gt": _comparison("gt"),
    "in": _comparison("in"),
    "integer": _integer,
    "iterable": _of_kind(str, range, Undefined, *CONTAINERS),
    "le": _comparison("lteq"),
    "lessthan": _comparison("lt"),
    "lower": _lower,
    "lt": _comparison("lt"),
    "mapping": _of_kind(dict),
    "ne": _comparison("ne"),
    "none": _being(None),
    "number": _of_kind(int, float),
    "odd": _odd,
    "sameas": _same_as,
    "sequence": _of_kind(str, range, Undefined, *CONTAINERS),
    "string": _of_kind(str),
    "true": _being(True),
    "undefined": _of_kind(Undefined),
    "upper": _upper,
}
