"""The filters of templates that work on lists. They do what Jinja's do, but give lists instead of generators."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from local_llms.prompts.interpreter.budget import Budget, Failure
from local_llms.prompts.interpreter.conditions import condition
from local_llms.prompts.interpreter.filters import VALUE_FILTERS
from local_llms.prompts.interpreter.methods import item
from local_llms.prompts.interpreter.operators import add, compare, joined
from local_llms.prompts.interpreter.values import (
    CONTAINERS,
    Undefined,
    Value,
    apply,
    defined,
    expect_text,
    kind,
    list_cost,
    sequence,
    to_text,
    weigh,
)

Getter = Callable[[Value], Value]

_PLACES = frozenset(str(place) for place in range(1000))


def _getter(budget: Budget, attribute: Value, default: Value = None) -> Getter:
    """What an ``attribute=`` names: ``a.b.0`` goes from part to part; None is the value itself."""
    if attribute is None:
        return lambda value: value
    path = [attribute] if isinstance(attribute, int) else expect_text(attribute, "an attribute").split(".")
    keys: list[Value] = [int(part) if isinstance(part, str) and part in _PLACES else part for part in path]

    def get(value: Value) -> Value:
        budget.step(len(keys))
        for key in keys:
            value = item(budget, value, key)
        return default if isinstance(value, Undefined) and default is not None else value

    return get


def _list(budget: Budget, value: Value, /) -> Value:
    values = sequence(budget, value)
    budget.spend(list_cost(len(values)))
    return list(values)


def _first(budget: Budget, value: Value, /) -> Value:
    values = sequence(budget, value)
    return values[0] if values else Undefined("an empty list has no first item")


def _last(budget: Budget, value: Value, /) -> Value:
    values = sequence(budget, value)
    return values[-1] if values else Undefined("an empty list has no last item")


def _join(budget: Budget, value: Value, /, d: Value = "", attribute: Value = None) -> Value:
    get = _getter(budget, attribute)
    separator = to_text(budget, d)
    pieces: list[str] = []
    for part in sequence(budget, value):
        budget.step()
        pieces += (separator, to_text(budget, get(part)))
    return joined(budget, pieces[1:])


def _reverse(budget: Budget, value: Value, /) -> Value:
    if isinstance(value, str):
        budget.spend(len(value))
        return value[::-1]
    values = sequence(budget, value)
    budget.spend(list_cost(len(values)))
    return list(reversed(values))


def _sum(budget: Budget, value: Value, /, attribute: Value = None, start: Value = 0) -> Value:
    get = _getter(budget, attribute)
    for part in sequence(budget, value):
        budget.step()
        start = add(budget, start, get(part))
    return start


def _ordered(
    budget: Budget, values: Sequence[Value], get: Getter, *, case_sensitive: Value, reverse: Value = False
) -> list[Value]:
    """Sorted. Raises Failure where two values have no order."""
    for value in values:
        if isinstance(value, CONTAINERS):
            weigh(budget, value)
    budget.step(len(values))
    budget.spend(4 * list_cost(len(values)))

    def key(value: Value) -> Value:
        found = defined(get(value))
        if isinstance(found, str):
            budget.spend(len(found))
            return str(found) if case_sensitive else found.lower()
        return found

    try:
        # Only text, numbers and containers have an order; of the last, those within are compared as they are.
        return sorted(values, key=key, reverse=bool(reverse))  # type: ignore[arg-type]
    except TypeError as error:
        raise Failure(f"these values have no order: {error}") from None


def _sort(
    budget: Budget,
    value: Value,
    /,
    reverse: Value = False,
    case_sensitive: Value = False,
    attribute: Value = None,
) -> Value:
    values = sequence(budget, value)
    return _ordered(budget, values, _getter(budget, attribute), case_sensitive=case_sensitive, reverse=reverse)


def _sort_dictionary(
    budget: Budget, value: Value, /, case_sensitive: Value = False, by: Value = "key", reverse: Value = False
) -> Value:
    if not isinstance(value, dict) or by not in ("key", "value"):
        raise Failure(f"{kind(defined(value))} is no dictionary that can be sorted by key or value")
    get = _getter(budget, 0 if by == "key" else 1)
    return _ordered(budget, list(value.items()), get, case_sensitive=case_sensitive, reverse=reverse)


def _unique(budget: Budget, value: Value, /, case_sensitive: Value = False, attribute: Value = None) -> Value:
    get = _getter(budget, attribute)
    seen: set[Value] = set()
    kept = []
    for part in sequence(budget, value):
        budget.step()
        found = defined(get(part))
        if isinstance(found, CONTAINERS):
            raise Failure("lists and dictionaries cannot be made unique")
        if isinstance(found, str) and not case_sensitive:
            budget.spend(len(found))
            found = found.lower()
        if found not in seen:
            budget.spend(64)
            seen.add(found)
            kept.append(part)
    return kept


def _extreme(operator: str) -> Callable[..., Value]:
    def pick(budget: Budget, value: Value, /, case_sensitive: Value = False, attribute: Value = None) -> Value:
        get = _getter(budget, attribute)
        best: tuple[Value, Value] | None = None
        for part in sequence(budget, value):
            budget.step()
            found = get(part)
            if isinstance(found, str) and not case_sensitive:
                budget.spend(len(found))
                found = found.lower()
            if best is None or compare(budget, operator, found, best[1]):
                best = (part, found)
        return Undefined("an empty list has no smallest or largest item") if best is None else best[0]

    return pick


def _map(budget: Budget, value: Value, /, *arguments: Value, **named: Value) -> Value:
    if arguments:
        name = expect_text(arguments[0], "the filter of a map")
        function = find_filter(name)

        def filtered(part: Value) -> Value:
            budget.step()
            return apply(name, function, (budget, part, *arguments[1:]), named)

        change: Getter = filtered
    elif named and named.keys() <= {"attribute", "default"} and "attribute" in named:
        change = _getter(budget, named["attribute"], named.get("default"))
    else:
        raise Failure("map takes the name of a filter, or attribute=")
    values = sequence(budget, value or [])
    budget.spend(list_cost(len(values)))
    return [change(part) for part in values]


def _selection(keep: bool, *, by_attribute: bool) -> Callable[..., Value]:
    def select(budget: Budget, value: Value, /, *arguments: Value) -> Value:
        if by_attribute and not arguments:
            raise Failure("selectattr and rejectattr need the name of an attribute")
        get = _getter(budget, arguments[0] if by_attribute else None)
        test = arguments[by_attribute:]
        # As in Jinja, there is nothing to select from None.
        values = sequence(budget, value or [])
        budget.spend(list_cost(len(values)))
        return [part for part in values if _holds(budget, get(part), test) == keep]

    return select


def _holds(budget: Budget, value: Value, test: Sequence[Value]) -> bool:
    budget.step()
    if not test:
        return bool(value)
    name = expect_text(test[0], "the name of a test")
    return bool(apply(name, condition(name), (budget, value, *test[1:]), {}))


def find_filter(name: str) -> Callable[..., Value]:
    """The filter of that name. Raises Failure where there is none."""
    if name not in FILTERS:
        raise Failure(f"there is no filter {name!r}")
    return FILTERS[name]


FILTERS: dict[str, Callable[..., Value]] = {
    **VALUE_FILTERS,
    "dictsort": _sort_dictionary,
    "first": _first,
    "join": _join,
    "last": _last,
    "list": _list,
    "map": _map,
    "max": _extreme("gt"),
    "min": _extreme("lt"),
    "reject": _selection(False, by_attribute=False),
    "rejectattr": _selection(False, by_attribute=True),
    "reverse": _reverse,
    "select": _selection(True, by_attribute=False),
    "selectattr": _selection(True, by_attribute=True),
    "sort": _sort,
    "sum": _sum,
    "unique": _unique,
}
