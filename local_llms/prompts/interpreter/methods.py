"""Attributes and items: ``a.name``, ``a["name"]`` and the methods that text, lists and dictionaries have."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from local_llms.prompts.interpreter import text as texts
from local_llms.prompts.interpreter.budget import Budget, Failure
from local_llms.prompts.interpreter.operators import joined
from local_llms.prompts.interpreter.values import (
    CONTAINERS,
    Callee,
    Function,
    Namespace,
    Undefined,
    Value,
    defined,
    equal,
    expect_integer,
    expect_key,
    expect_text,
    kind,
    list_cost,
    sequence,
    to_text,
)


def attribute(budget: Budget, owner: Value, name: str) -> Value:
    """``owner.name``: a method, else an item of that name. Undefined where there is neither."""
    method = _method(owner, name)
    if method is not None:
        return method
    if isinstance(owner, dict) and name in owner:
        return owner[name]
    if name.startswith("_"):
        raise Failure(f"names with an underscore in front, such as {name}, are out of reach")
    if isinstance(owner, Namespace):
        return owner.attributes.get(name, Undefined(f"the namespace has no {name!r}"))
    if isinstance(owner, Callee):
        return owner.attribute(name)
    return Undefined(f"{kind(defined(owner))} has no attribute {name!r}")


def item(budget: Budget, owner: Value, key: Value) -> Value:
    """``owner[key]``: an item, else a method of that name. Undefined where there is neither."""
    if isinstance(owner, dict):
        # A list is no key; asking for it finds nothing, as in Jinja.
        if not isinstance(key, CONTAINERS) and key in owner:
            return owner[key]
    elif isinstance(owner, (str, list, tuple, range)) and isinstance(key, int):
        if not -len(owner) <= key < len(owner):
            return Undefined(f"{kind(owner)} has no item {key}")
        place = key % len(owner)
        return texts.cut(owner, place, place + 1) if isinstance(owner, str) else owner[place]
    if not isinstance(key, str):
        return Undefined(f"{kind(defined(owner))} has no item {defined(key)!r}")
    return attribute(budget, owner, key)


def _method(owner: Value, name: str) -> Function | None:
    function = METHODS.get(type(owner), {}).get(name)
    return None if function is None else Function(f"{kind(owner)}.{name}", function, owner)


def _charged(operation: Callable[..., Value], *, parts: bool = False) -> Callable[..., Value]:
    """A method of text whose result is not longer than the text; ``parts``: it cuts the text into pieces."""

    def method(budget: Budget, text: str, /, *arguments: Value) -> Value:
        for argument in arguments:
            if not (argument is None or isinstance(argument, (str, int, tuple))):
                raise Failure(f"a method of text cannot take {kind(defined(argument))}")
        budget.spend(2 * texts.cost(text))
        if parts:
            separator = arguments[0] if arguments and isinstance(arguments[0], str) else ""
            budget.spend(72 * (text.count(separator) + 1 if separator else len(text) // 2 + 1))
        try:
            return operation(text, *arguments)
        except (TypeError, ValueError) as error:
            raise Failure(f"a method of text: {error}") from None

    return method


def _replace(budget: Budget, text: str, old: Value, new: Value, limit: Value = -1, /) -> Value:
    old, new = expect_text(old, "what is replaced"), expect_text(new, "the replacement")
    times = expect_integer(limit, "how often is replaced")
    found = text.count(old)
    budget.spend(texts.cost(text) + 32 * found + found * texts.cost(new))
    return texts.replace(text, old, new, times)


def _join(budget: Budget, text: str, parts: Value, /) -> Value:
    pieces: list[str] = []
    for part in sequence(budget, parts):
        pieces += (text, expect_text(part, "what is joined"))
    return joined(budget, pieces[1:])


def _format(budget: Budget, text: str, /, *given: Value, **named: Value) -> Value:
    values = {**{str(place): value for place, value in enumerate(given)}, **named}
    places = count()

    def value_of(field: str) -> str:
        name = field or str(next(places))
        if name not in values:
            raise Failure(f"there is nothing to fill into the field {{{field}}}")
        value = to_text(budget, values[name])
        budget.spend(texts.cost(value))
        return value

    budget.spend(2 * texts.cost(text) + 40 * text.count("{") + 40 * text.count("}"))
    try:
        return texts.fill(text, value_of)
    except ValueError as error:
        raise Failure(f"format: {error}") from None


def _split(budget: Budget, text: str, /, sep: Value = None, maxsplit: Value = -1) -> Value:
    return _SPLIT(budget, text, sep, maxsplit)


def _rsplit(budget: Budget, text: str, /, sep: Value = None, maxsplit: Value = -1) -> Value:
    return _RSPLIT(budget, text, sep, maxsplit)


def _splitlines(budget: Budget, text: str, /, keepends: Value = False) -> Value:
    return _SPLITLINES(budget, text, bool(keepends))


def _items(budget: Budget, owner: dict[Value, Value], /) -> Value:
    budget.spend(3 * list_cost(len(owner)))
    return list(owner.items())


def _keys(budget: Budget, owner: dict[Value, Value], /) -> Value:
    budget.spend(list_cost(len(owner)))
    return list(owner)


def _values(budget: Budget, owner: dict[Value, Value], /) -> Value:
    budget.spend(list_cost(len(owner)))
    return list(owner.values())


def _get(budget: Budget, owner: dict[Value, Value], key: Value, default: Value = None, /) -> Value:
    return owner.get(expect_key(key), default)


def _copy(budget: Budget, owner: dict[Value, Value] | list[Value], /) -> Value:
    budget.spend(2 * list_cost(len(owner)))
    return owner.copy()


def _count(budget: Budget, owner: list[Value], value: Value, /) -> Value:
    return sum(1 for part in owner if _same(budget, part, value))


def _index(budget: Budget, owner: list[Value], value: Value, /) -> Value:
    for place, part in enumerate(owner):
        if _same(budget, part, value):
            return place
    raise Failure("what is looked for is not in the list")


def _same(budget: Budget, left: Value, right: Value) -> bool:
    budget.step()
    return equal(budget, left, right)


_SPLIT = _charged(texts.split, parts=True)
_RSPLIT = _charged(texts.rsplit, parts=True)
_SPLITLINES = _charged(texts.splitlines, parts=True)

_TEXT_METHODS: dict[str, Callable[..., Value]] = {
    "format": _format,
    "join": _join,
    "replace": _replace,
    "rsplit": _rsplit,
    "split": _split,
    "splitlines": _splitlines,
    # These keep the spans.
    "lstrip": _charged(texts.lstrip),
    "partition": _charged(texts.partition),
    "removeprefix": _charged(texts.removeprefix),
    "removesuffix": _charged(texts.removesuffix),
    "rpartition": _charged(texts.rpartition),
    "rstrip": _charged(texts.rstrip),
    "strip": _charged(texts.strip),
    # These give content, or no text at all.
    "capitalize": _charged(str.capitalize),
    "casefold": _charged(str.casefold),
    "count": _charged(str.count),
    "endswith": _charged(str.endswith),
    "find": _charged(str.find),
    "index": _charged(str.index),
    "isalnum": _charged(str.isalnum),
    "isalpha": _charged(str.isalpha),
    "isascii": _charged(str.isascii),
    "isdecimal": _charged(str.isdecimal),
    "isdigit": _charged(str.isdigit),
    "islower": _charged(str.islower),
    "isnumeric": _charged(str.isnumeric),
    "isspace": _charged(str.isspace),
    "istitle": _charged(str.istitle),
    "isupper": _charged(str.isupper),
    "lower": _charged(str.lower),
    "rfind": _charged(str.rfind),
    "rindex": _charged(str.rindex),
    "startswith": _charged(str.startswith),
    "swapcase": _charged(str.swapcase),
    "title": _charged(str.title),
    "upper": _charged(str.upper),
}

_LIST_METHODS: dict[str, Callable[..., Value]] = {"copy": _copy, "count": _count, "index": _index}

METHODS: dict[type, dict[str, Callable[..., Value]]] = {
    str: _TEXT_METHODS,
    texts.Text: _TEXT_METHODS,
    list: _LIST_METHODS,
    tuple: {"count": _count, "index": _index},
    dict: {"copy": _copy, "get": _get, "items": _items, "keys": _keys, "values": _values},
}
