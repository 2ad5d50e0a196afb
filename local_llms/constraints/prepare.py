"""A caller's JSON Schema → one of which masks are made: checked, bounded, and never wider than the caller's.

Where JSON Schema knows more than masks can express, a narrower schema takes its place, whose every document is valid
under the caller's; where there is none, that is an error. References are collected under ``$defs``.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from local_llms.constraints.formats import FREE, PATTERNS
from local_llms.constraints.limits import MOST_DEPTH, MOST_NODES, check_size
from local_llms.constraints.satisfiable import has_a_document
from local_llms.errors import ConstraintError

Schema = dict[str, Any] | bool

_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
_KEPT = frozenset(
    "type enum const required minItems maxItems minLength maxLength pattern minimum maximum exclusiveMinimum "
    "exclusiveMaximum multipleOf minProperties maxProperties".split()
)
_INSIDE = frozenset({"items", "additionalProperties"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_NAMED = frozenset({"properties", "patternProperties"})
_SAYS_NOTHING = frozenset(
    "$schema $id $anchor $comment $defs definitions title description default example examples deprecated readOnly "
    "writeOnly contentMediaType contentEncoding contentSchema discriminator externalDocs xml strict".split()
)
_UNDERSTOOD = frozenset({"$ref", "format", "propertyNames", "uniqueItems", *_KEPT, *_INSIDE, *_LISTS, *_NAMED})

_LARGEST = 2**53 - 1
"""Of integers without a bound of their own: the largest that every reader of JSON keeps exactly (RFC 8259)."""
_STEP = 1e-9
"""How far, at least, a number stays away from an excluded bound, lest it be rounded to it."""


def prepare(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema that masks are made of. Raises ConstraintError, which names the place and what is wrong there."""
    prepared = _Preparation(schema).run()
    check_size("The schema", json.dumps(prepared))
    if not has_a_document(prepared):
        raise ConstraintError("No finite document fits the schema: something in it requires itself, or is empty.")
    return prepared


class _Preparation:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._names: dict[str, str] = {}
        self._open: list[str] = []
        self._nodes = 0

    def run(self) -> dict[str, Any]:
        definitions: dict[str, Schema] = {}
        self._refer("#", "#")
        while self._open:
            pointer = self._open.pop()
            definitions[self._names[pointer]] = self._schema(self._find(pointer), pointer, 0)
        first = definitions.pop(self._names["#"])
        if not isinstance(first, dict):
            raise ConstraintError("A JSON Schema is an object.")
        if any('"#/$defs/root"' in json.dumps(one) for one in (first, *definitions.values())):
            definitions["root"] = first
            first = {"$ref": "#/$defs/root"}
        return {**first, "$defs": definitions} if definitions else first

    def _schema(self, node: Any, place: str, depth: int) -> Schema:
        if isinstance(node, bool):
            return node
        if not isinstance(node, Mapping):
            raise ConstraintError(f"At {place}: a schema is an object or a truth value, not {type(node).__name__}.")
        self._nodes += 1
        if depth > MOST_DEPTH:
            raise ConstraintError(f"At {place}: schemas are nested more than {MOST_DEPTH} deep.")
        if self._nodes > MOST_NODES:
            raise ConstraintError(f"The schema has more than {MOST_NODES:,} schemas in it.")
        result: dict[str, Any] = {}
        for key, value in node.items():
            where = f"{place}/{key}"
            if key in _KEPT:
                result[key] = _plain(value, where)
            elif key in _INSIDE:
                result[key] = self._schema(value, where, depth + 1)
            elif key in _LISTS:
                if not isinstance(value, Sequence) or isinstance(value, str):
                    raise ConstraintError(f"At {where}: this must be a list of schemas.")
                result[key] = [self._schema(one, f"{where}/{at}", depth + 1) for at, one in enumerate(value)]
            elif key in _NAMED:
                if not isinstance(value, Mapping):
                    raise ConstraintError(f"At {where}: this must be an object of schemas.")
                result[key] = {
                    str(name): self._schema(one, f"{where}/{name}", depth + 1) for name, one in value.items()
                }
            elif key == "$ref":
                result[key] = f"#/$defs/{self._refer(value, where)}"
            elif key not in _UNDERSTOOD:
                _check_unknown(key, place)
        _check_type(result.get("type"), place)
        _narrow_format(result, node.get("format"), place)
        _narrow_numbers(result, place)
        _narrow_array(result, node.get("uniqueItems"), place)
        self._narrow_names(result, node.get("propertyNames"), place)
        return result

    def _refer(self, pointer: Any, place: str) -> str:
        """The name, under ``$defs``, of what a reference points at."""
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            raise ConstraintError(f"At {place}: {pointer!r} refers to another document; put what it means under $defs.")
        if pointer not in self._names:
            self._find(pointer)
            self._names[pointer] = f"d{len(self._names)}" if self._names else "root"
            self._open.append(pointer)
        return self._names[pointer]

    def _find(self, pointer: str) -> Any:
        found: Any = self._root
        for part in pointer.split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise ConstraintError(f"The schema refers to {pointer}, which is not there.")
        return found

    def _narrow_names(self, result: dict[str, Any], names: Any, place: str) -> None:
        """Write ``propertyNames`` as properties, and leave out a count of properties that is met anyway."""
        if isinstance(names, Mapping) and set(names) == {"$ref"} and isinstance(names["$ref"], str):
            names = self._find(names["$ref"]) if names["$ref"].startswith("#") else names
        if names is not None and names is not True:
            said = {key: value for key, value in names.items() if key not in _SAYS_NOTHING} if names else {}
            values = said.pop("enum", [said.pop("const")] if "const" in said else None)
            pattern = said.pop("pattern", None)
            others = result.get("additionalProperties", True)
            if said not in ({}, {"type": "string"}) or (values and pattern) or result.get("patternProperties"):
                raise ConstraintError(f"At {place}/propertyNames: only an enum or a pattern can be kept to here.")
            if values is not None:
                listed = {str(name): others for name in values}
                result["properties"] = {**listed, **result.get("properties", {})}
                result["additionalProperties"] = False
            elif pattern is not None:
                result["patternProperties"] = {pattern: others}
                result["additionalProperties"] = False
        least = result.get("minProperties", 0)
        if isinstance(least, int) and least <= len(set(result.get("required", ()))):
            result.pop("minProperties", None)
        elif least > 1:
            raise ConstraintError(
                f"At {place}/minProperties: names may be given twice, so more than one cannot be asked for. "
                "List the names under required."
            )


def _check_unknown(key: str, place: str) -> None:
    if key in _SAYS_NOTHING or key.startswith("x-"):
        return
    near = difflib.get_close_matches(key, _UNDERSTOOD, n=1, cutoff=0.8)
    hint = f" Did you mean {near[0]!r}?" if near else " Leave it out, or say the same in other words."
    raise ConstraintError(f"At {place}: the keyword {key!r} cannot be kept to while generating.{hint}")


def _check_type(kinds: Any, place: str) -> None:
    listed = [] if kinds is None else kinds if isinstance(kinds, list) else [kinds]
    for kind in listed:
        if kind not in _TYPES:
            raise ConstraintError(f"At {place}/type: there is no type {kind!r}. Known: {', '.join(sorted(_TYPES))}.")


def _plain(value: Any, place: str) -> Any:
    """A JSON value, copied."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConstraintError(f"At {place}: this is no JSON: {error}.") from None


def _narrow_format(result: dict[str, Any], name: Any, place: str) -> None:
    if name is None or name in FREE:
        return
    if name not in PATTERNS:
        known = ", ".join(sorted(PATTERNS))
        raise ConstraintError(f"At {place}/format: the format {name!r} cannot be kept to. Known: {known}.")
    whole = f"^(?:{PATTERNS[name]})$"
    if "pattern" in result:
        result["allOf"] = [*result.get("allOf", ()), {"pattern": whole}]
    else:
        result["pattern"] = whole


def _narrow_numbers(result: dict[str, Any], place: str) -> None:
    names = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
    for name in names:
        if name in result and (isinstance(result[name], bool) or not isinstance(result[name], int | float)):
            raise ConstraintError(f"At {place}/{name}: this must be a number.")
    kinds = result.get("type")
    listed = kinds if isinstance(kinds, list) else [kinds]
    whole = "integer" in listed and "number" not in listed
    if not whole and kinds is not None and "number" not in listed:
        return
    low, over, high, under = (result.pop(name, None) for name in names)
    if whole:
        least = [-_LARGEST] if low is over is None else []
        least += [math.ceil(low)] if low is not None else []
        least += [math.floor(over) + 1] if over is not None else []
        most = [max(_LARGEST, max(least) + _LARGEST)] if high is under is None else []
        most += [math.floor(high)] if high is not None else []
        most += [math.ceil(under) - 1] if under is not None else []
        if low is over is None:
            least = [min(-_LARGEST, min(most) - _LARGEST)]
        if "multipleOf" not in result or not low is over is None:
            result["minimum"] = max(least)
        if "multipleOf" not in result or not high is under is None:
            result["maximum"] = min(most)
        return
    lows = [low] if low is not None else []
    lows += [max(math.nextafter(over, math.inf), over + _STEP)] if over is not None else []
    highs = [high] if high is not None else []
    highs += [min(math.nextafter(under, -math.inf), under - _STEP)] if under is not None else []
    if lows:
        result["minimum"] = max(lows)
    if highs:
        result["maximum"] = min(highs)


def _narrow_array(result: dict[str, Any], unique: Any, place: str) -> None:
    if unique and result.get("maxItems", 2) > 1:
        raise ConstraintError(
            f"At {place}/uniqueItems: a mask cannot tell whether items are different. Leave it out, or set maxItems=1."
        )
