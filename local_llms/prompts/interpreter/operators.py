"""The operators of templates, on the values of ``values.py``. All results are bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from local_llms.prompts.interpreter.budget import INTEGER_BITS, Budget, Failure
from local_llms.prompts.interpreter.text import concat, cost, cut
from local_llms.prompts.interpreter.values import (
    CONTAINERS,
    Value,
    contains,
    defined,
    equal,
    kind,
    list_cost,
    small,
    to_text,
    weigh,
)

Binary = Callable[[Budget, Value, Value], Value]


def joined(budget: Budget, parts: Sequence[str]) -> str:
    """Strings one after the other."""
    budget.spend(sum(map(cost, parts)))
    return concat(parts)


def tilde(budget: Budget, values: Sequence[Value]) -> str:
    """``a ~ b``: the values as they are printed, one after the other."""
    return joined(budget, [to_text(budget, value) for value in values])


def add(budget: Budget, left: Value, right: Value) -> Value:
    """``a + b`` of numbers, texts, lists or tuples."""
    if isinstance(left, str) and isinstance(right, str):
        return joined(budget, (left, right))
    if isinstance(left, list) and isinstance(right, list):
        budget.spend(list_cost(len(left) + len(right)))
        return left + right
    if isinstance(left, tuple) and isinstance(right, tuple):
        budget.spend(list_cost(len(left) + len(right)))
        return left + right
    return _calculate("+", left, right, lambda a, b: a + b)


def subtract(budget: Budget, left: Value, right: Value) -> Value:
    """``a - b`` of numbers."""
    return _calculate("-", left, right, lambda a, b: a - b)


def multiply(budget: Budget, left: Value, right: Value) -> Value:
    """``a * b`` of numbers, or of a text, a list or a tuple and a number."""
    if isinstance(left, int) and isinstance(right, (str, list, tuple)):
        left, right = right, left
    if isinstance(left, str) and isinstance(right, int):
        budget.spend(cost(left) * max(right, 0))
        return concat([left] * right)
    if isinstance(left, (list, tuple)) and isinstance(right, int):
        budget.spend(list_cost(len(left) * max(right, 0)))
        return left * right
    return _calculate("*", left, right, lambda a, b: a * b)


def divide(budget: Budget, left: Value, right: Value) -> Value:
    """``a / b`` of numbers."""
    return _calculate("/", left, right, lambda a, b: a / b)


def floor_divide(budget: Budget, left: Value, right: Value) -> Value:
    """``a // b`` of numbers."""
    return _calculate("//", left, right, lambda a, b: a // b)


def modulo(budget: Budget, left: Value, right: Value) -> Value:
    """``a % b`` of numbers. Formatting text with it is not offered."""
    return _calculate("%", left, right, lambda a, b: a % b)


def power(budget: Budget, left: Value, right: Value) -> Value:
    """``a ** b`` of numbers."""
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > INTEGER_BITS:
        raise Failure("a number becomes too large")
    return _calculate("**", left, right, lambda a, b: a**b)


def negate(budget: Budget, value: Value) -> Value:
    """``-a`` of a number."""
    if isinstance(value, (int, float)):
        return -value
    raise Failure(f"-{kind(defined(value))} is not possible")


def plus(budget: Budget, value: Value) -> Value:
    """``+a`` of a number."""
    if isinstance(value, (int, float)):
        return +value
    raise Failure(f"+{kind(defined(value))} is not possible")


def slice_of(budget: Budget, value: Value, start: Value, stop: Value, step: Value) -> Value:
    """``a[start:stop:step]`` of text, a list, a tuple or a range."""
    bounds = slice(_bound(start), _bound(stop), _bound(step))
    if bounds.step == 0:
        raise Failure("a slice cannot have a step of 0")
    if isinstance(value, str):
        first, last, stride = bounds.indices(len(value))
        budget.spend(cost(value))
        return cut(value, first, max(first, last)) if stride == 1 else str(value)[bounds]
    if isinstance(value, (list, tuple)):
        budget.spend(list_cost(len(value)))
        return value[bounds]
    if isinstance(value, range):
        return value[bounds]
    raise Failure(f"{kind(defined(value))} cannot be cut into slices")


def compare(budget: Budget, operator: str, left: Value, right: Value) -> bool:
    """A comparison, by the name that Jinja's syntax tree gives it. Raises Failure for values without an order."""
    if operator == "eq":
        return equal(budget, left, right)
    if operator == "ne":
        return not equal(budget, left, right)
    if operator == "in":
        return contains(budget, right, left)
    if operator == "notin":
        return not contains(budget, right, left)
    for value in (left, right):
        if isinstance(defined(value), CONTAINERS):
            weigh(budget, value)
    try:
        return _ORDER[operator](left, right)
    except TypeError:
        raise Failure(f"{kind(left)} and {kind(right)} have no order") from None


def _calculate(sign: str, left: Value, right: Value, operation: Callable[..., Value]) -> Value:
    if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
        raise Failure(f"{kind(defined(left))} {sign} {kind(defined(right))} is not possible")
    try:
        result = operation(left, right)
    except (OverflowError, ZeroDivisionError) as error:
        raise Failure(f"{left} {sign} {right}: {error}") from None
    if isinstance(result, int):
        return small(result)
    if isinstance(result, complex):
        raise Failure(f"{left} {sign} {right} is not a real number")
    return result


def _bound(value: Value) -> int | None:
    if value is None or isinstance(value, int):
        return value
    raise Failure(f"a slice goes from integer to integer, not {kind(defined(value))}")


_ORDER: dict[str, Callable[..., bool]] = {
    "lt": lambda left, right: left < right,
    "lteq": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "gteq": lambda left, right: left >= right,
}

BINARY: dict[str, Binary] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "//": floor_divide,
    "%": modulo,
    "**": power,
}
