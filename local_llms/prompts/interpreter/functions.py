"""The functions that a template can call by name: those that Hugging Face's chat templates are given."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from local_llms.prompts.interpreter.budget import Budget, Failure, Raised
from local_llms.prompts.interpreter.values import (
    Function,
    Namespace,
    Value,
    expect_integer,
    expect_text,
    kind,
    list_cost,
    to_text,
)

RANGE = 100_000
"""Most numbers in a range, as in Jinja's sandbox."""


def _range(budget: Budget, /, *bounds: Value) -> range:
    if not 1 <= len(bounds) <= 3:
        raise Failure("range takes one to three integers")
    try:
        numbers = range(*(expect_integer(bound, "an argument of range") for bound in bounds))
        too_long = len(numbers) > RANGE
    except (ValueError, OverflowError) as error:
        raise Failure(f"range: {error}") from None
    if too_long:
        raise Failure(f"a range has more than {RANGE} numbers")
    return numbers


def _namespace(budget: Budget, given: Value = None, /, **attributes: Value) -> Namespace:
    return Namespace(_dict(budget, given, **attributes))


def _dict(budget: Budget, given: Value = None, /, **items: Value) -> dict[str, Value]:
    if given is not None and not isinstance(given, dict):
        raise Failure(f"a dictionary is made from another one or from names, not from {kind(given)}")
    budget.spend(2 * list_cost(len(given or {}) + len(items)))
    return {**(given or {}), **items}


def _raise_exception(budget: Budget, message: Value = "", /) -> Value:
    raise Raised(to_text(budget, message))


def _strftime_now(budget: Budget, form: Value, /) -> str:
    form = expect_text(form, "the form of a date")
    if len(form) > 200:
        raise Failure("the form of a date is too long")
    try:
        return datetime.now().astimezone().strftime(form)
    except ValueError as error:
        raise Failure(f"strftime_now: {error}") from None


def _functions(**functions: Callable[..., Value]) -> dict[str, Value]:
    return {name: Function(name, function) for name, function in functions.items()}


FUNCTIONS: dict[str, Value] = _functions(
    dict=_dict,
    namespace=_namespace,
    raise_exception=_raise_exception,
    range=_range,
    strftime_now=_strftime_now,
)
