"""What stands behind ``|``: the filters of templates, for one value each. Those for lists are in ``list_filters.py``.

They do what Jinja's filters of these names do; ``tojson`` does what Hugging Face's does: no HTML escapes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable

from local_llms.prompts.interpreter import text as texts
from local_llms.prompts.interpreter.budget import Budget, Failure
from local_llms.prompts.interpreter.methods import METHODS
from local_llms.prompts.interpreter.operators import joined
from local_llms.prompts.interpreter.values import (
    Undefined,
    Value,
    defined,
    expect_integer,
    expect_text,
    kind,
    list_cost,
    small,
    to_text,
    weigh,
)

_WORD_STARTS = re.compile(r"([-\s({\[<]+)")
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&#39;", '"': "&#34;"})


def _text_method(name: str) -> Callable[..., Value]:
    method = METHODS[str][name]

    def apply(budget: Budget, value: Value, /, *arguments: Value) -> Value:
        return method(budget, to_text(budget, value), *arguments)

    return apply


def _trim(budget: Budget, value: Value, /, chars: Value = None) -> Value:
    return METHODS[str]["strip"](budget, to_text(budget, value), chars)


def _replace(budget: Budget, value: Value, /, old: Value, new: Value, count: Value = None) -> Value:
    times = -1 if count is None else count
    return METHODS[str]["replace"](budget, to_text(budget, value), to_text(budget, old), to_text(budget, new), times)


def _title(budget: Budget, value: Value, /) -> Value:
    text = to_text(budget, value)
    budget.spend(64 * len(text))
    return "".join(word[0].upper() + word[1:].lower() for word in _WORD_STARTS.split(text) if word)


def _escape(budget: Budget, value: Value, /) -> Value:
    text = to_text(budget, value)
    budget.spend(5 * len(text))
    return text.translate(_HTML)


def _indent(budget: Budget, value: Value, /, width: Value = 4, first: Value = False, blank: Value = False) -> Value:
    text = to_text(budget, value)
    if isinstance(width, int):
        budget.spend(max(width, 0))
        margin = " " * width
    else:
        margin = expect_text(width, "the width of an indent")
    budget.spend(8 * texts.cost(text))
    lines = texts.splitlines(texts.concat((text, "\n")))
    budget.spend(len(lines) * (texts.cost(margin) + 32))
    parts: list[str] = [margin] if first else []
    for place, line in enumerate(lines):
        if place:
            parts.append("\n" + margin if line or blank else "\n")
        parts.append(line)
    return joined(budget, parts)


def _string(budget: Budget, value: Value, /) -> Value:
    return to_text(budget, value)


def _itself(budget: Budget, value: Value, /) -> Value:
    return value


def _default(budget: Budget, value: Value, /, default_value: Value = "", boolean: Value = False) -> Value:
    return default_value if isinstance(value, Undefined) or (boolean and not value) else value


def _length(budget: Budget, value: Value, /) -> Value:
    if isinstance(value, (str, list, tuple, dict, range, Undefined)):
        return len(value)
    raise Failure(f"{kind(value)} has no length")


def _integer(budget: Budget, value: Value, /, default: Value = 0, base: Value = 10) -> Value:
    try:
        if isinstance(value, str):
            return small(int(value, expect_integer(base, "the base")))
        if isinstance(value, (int, float)):
            return small(int(value))
    except (ValueError, OverflowError):
        number = _float(budget, value, math.nan)
        if isinstance(number, float) and math.isfinite(number):
            return small(int(number))
    return default


def _float(budget: Budget, value: Value, /, default: Value = 0.0) -> Value:
    try:
        return float(value) if isinstance(value, (str, int, float)) else default
    except (ValueError, OverflowError):
        return default


def _absolute(budget: Budget, value: Value, /) -> Value:
    if isinstance(value, (int, float)):
        return abs(value)
    raise Failure(f"{kind(defined(value))} has no absolute value")


def _round(budget: Budget, value: Value, /, precision: Value = 0, method: Value = "common") -> Value:
    places = expect_integer(precision, "the precision")
    if not isinstance(value, (int, float)) or abs(places) > 100:
        raise Failure(f"{kind(defined(value))} cannot be rounded to {places} places")
    scale = 10.0**places
    try:
        if method == "common":
            return round(value, places)
        if method in ("ceil", "floor"):
            return (math.ceil if method == "ceil" else math.floor)(value * scale) / scale
    except (OverflowError, ValueError) as error:
        raise Failure(f"round: {error}") from None
    raise Failure("a number is rounded by the method common, ceil or floor")


def _word_count(budget: Budget, value: Value, /) -> Value:
    text = to_text(budget, value)
    budget.spend(40 * len(text))
    return len(re.findall(r"\w+", text))


def _items(budget: Budget, value: Value, /) -> Value:
    if isinstance(value, Undefined):
        return []
    if isinstance(value, dict):
        budget.spend(3 * list_cost(len(value)))
        return list(value.items())
    raise Failure(f"{kind(value)} has no items")


def _to_json(
    budget: Budget,
    value: Value,
    /,
    ensure_ascii: Value = False,
    indent: Value = None,
    separators: Value = None,
    sort_keys: Value = False,
) -> Value:
    margin = 0 if indent is None else expect_integer(indent, "the indent")
    if not 0 <= margin <= 16:
        raise Failure("JSON is indented by 0 to 16 spaces")
    marks = None if separators is None else _separators(separators)
    size = weigh(budget, value)
    each = 8 + margin * size.depth + sum(map(len, marks or ()))
    budget.spend(size.nodes * each + size.characters * (12 if ensure_ascii else 6))
    try:
        return json.dumps(
            value,
            ensure_ascii=bool(ensure_ascii),
            indent=None if indent is None else margin,
            separators=marks,
            sort_keys=bool(sort_keys),
        )
    except (TypeError, ValueError) as error:
        raise Failure(f"tojson: {error}") from None


def _separators(value: Value) -> tuple[str, str]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise Failure("the separators of JSON are a pair of texts")
    return expect_text(value[0], "a separator"), expect_text(value[1], "a separator")


VALUE_FILTERS: dict[str, Callable[..., Value]] = {
    "abs": _absolute,
    "capitalize": _text_method("capitalize"),
    "count": _length,
    "d": _default,
    "default": _default,
    "e": _escape,
    "escape": _escape,
    "float": _float,
    "indent": _indent,
    "int": _integer,
    "items": _items,
    "length": _length,
    "lower": _text_method("lower"),
    "replace": _replace,
    "round": _round,
    "safe": _itself,
    "string": _string,
    "title": _title,
    "tojson": _to_json,
    "trim": _trim,
    "upper": _text_method("upper"),
    "wordcount": _word_count,
}
