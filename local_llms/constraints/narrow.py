"""Narrower words for what one schema says about texts, numbers and lists, where masks cannot say exactly the same."""

from __future__ import annotations

import math
from typing import Any

from local_llms.constraints.formats import FREE, PATTERNS, portable
from local_llms.errors import ConstraintError

LARGEST = 2**53 - 1
"""Of integers without a bound of their own: the largest that every reader of JSON keeps exactly (RFC 8259)."""
_WIDEST = 2**63 - 1
"""The largest bound of an integer that llguidance knows."""
_FARTHEST = 1e18
"""Of numbers without a bound of their own: so none is infinite to its reader, and a model that writes digit after digit
comes to an end."""
_FINEST = 1e-9
"""What numbers without a step of their own are multiples of: nine decimals."""
_COARSE = 1e-3
"""Where both bounds are nearer to zero than this, numbers have as many decimals as the model writes."""
_STEP = 1e-9
"""How far, at least, a number stays away from an excluded bound, lest it be rounded to it."""

_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")

ANY_NUMBER = {"type": "number", "minimum": -_FARTHEST, "maximum": _FARTHEST, "multipleOf": _FINEST}


def text(result: dict[str, Any], form: Any, place: str) -> None:
    """Change ``pattern``, and add the one of a ``format``, in place. Raises ConstraintError for an unknown format."""
    if "pattern" in result:
        if not isinstance(result["pattern"], str):
            raise ConstraintError(f"At {place}/pattern: this must be a regular expression.")
        result["pattern"] = portable(result["pattern"])
    if form is None or form in FREE:
        return
    if form not in PATTERNS:
        known = ", ".join(sorted(PATTERNS))
        raise ConstraintError(f"At {place}/format: the format {form!r} cannot be kept to. Known: {known}.")
    whole = f"^(?:{PATTERNS[form]})$"
    if "pattern" in result:
        result["allOf"] = [*result.get("allOf", ()), {"pattern": whole}]
    else:
        result["pattern"] = whole


def numbers(result: dict[str, Any], place: str) -> None:
    """Bound what is not bounded, and move excluded bounds inward, in place. Raises ConstraintError."""
    for name in (*_BOUNDS, "multipleOf"):
        value = result.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConstraintError(f"At {place}/{name}: this must be a number.")
    kinds = result.get("type")
    listed = kinds if isinstance(kinds, list) else [kinds]
    if "integer" in listed and "number" not in listed:
        _integers(result, place)
    elif "number" in listed or (kinds is None and any(name in result for name in _BOUNDS)):
        _fractions(result)


def _integers(result: dict[str, Any], place: str) -> None:
    low, over, high, under = (result.pop(name, None) for name in _BOUNDS)
    least = [math.ceil(low)] if low is not None else []
    least += [math.floor(over) + 1] if over is not None else []
    most = [math.floor(high)] if high is not None else []
    most += [math.ceil(under) - 1] if under is not None else []
    least = least or [min((-LARGEST, *(bound - LARGEST for bound in most)))]
    most = most or [max((LARGEST, *(bound + LARGEST for bound in least)))]
    if max(map(abs, (*least, *most))) > _WIDEST:
        raise ConstraintError(f"At {place}: integers beyond {_WIDEST} cannot be asked for.")
    result["minimum"], result["maximum"] = max(least), min(most)


def _fractions(result: dict[str, Any]) -> None:
    low, over, high, under = (result.pop(name, None) for name in _BOUNDS)
    lows = [low] if low is not None else []
    lows += [max(math.nextafter(over, math.inf), over + _STEP)] if over is not None else []
    highs = [high] if high is not None else []
    highs += [min(math.nextafter(under, -math.inf), under - _STEP)] if under is not None else []
    result["minimum"] = max(lows, default=-_FARTHEST)
    result["maximum"] = min(highs, default=_FARTHEST)
    if "multipleOf" not in result and max(abs(result["minimum"]), abs(result["maximum"])) > _COARSE:
        result["multipleOf"] = _FINEST


def lists(result: dict[str, Any], unique: Any, place: str) -> None:
    """Raise ConstraintError where items must differ."""
    most = result.get("maxItems", 2)
    if unique and not (isinstance(most, int) and most < 2):
        raise ConstraintError(
            f"At {place}/uniqueItems: a mask cannot tell whether items are different. Leave it out, or set maxItems=1."
        )
