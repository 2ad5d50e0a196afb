"""A caller's JSON Schema → one of which masks are made: checked, bounded, and never wider than the caller's.

Where JSON Schema knows more than masks can express, a narrower schema takes its place, whose every document is valid
under the caller's; where there is none, that is an error. What is narrower:

- an object that lists its properties has no others, unless ``additionalProperties`` says so;
- numbers have a size and a number of digits, see ``narrow``;
- formats and character classes are what all readers agree on, see ``formats``.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from local_llms.constraints import narrow, objects
from local_llms.constraints.keywords import ALTERNATIVES, INSIDE, KEPT, LISTS, NAMED, TYPES, UNDERSTOOD, says_nothing
from local_llms.constraints.limits import MOST_DEPTH, MOST_NODES, check_size
from local_llms.constraints.satisfiable import has_a_document
from local_llms.errors import ConstraintError

Schema = dict[str, Any] | bool

_ANY = "any"
_ANYTHING: dict[str, Any] = {
    "anyOf": [
        {"type": ["null", "boolean", "string"]},
        narrow.ANY_NUMBER,
        {"type": "array", "items": {"$ref": f"#/$defs/{_ANY}"}},
        {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{_ANY}"}},
    ]
}


def prepare(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema that masks are made of. Raises ConstraintError, which names the place and what is wrong there."""
    prepared = _Preparation(schema).run()
    check_size("The schema", json.dumps(prepared))
    if not has_a_document(prepared):
        raise ConstraintError("No finite document fits the schema: something in it requires itself, or is empty.")
    return prepared


class _Preparation:
    """A part of a schema is ``alone`` where nothing beside it says more about the same value."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._names: dict[tuple[str, bool], str] = {}
        self._open: list[tuple[str, bool]] = []
        self._any = False
        self._nodes = 0

    def run(self) -> dict[str, Any]:
        first = self._refer("#", "#", alone=True)
        definitions: dict[str, Schema] = {}
        while self._open:
            pointer, alone = self._open.pop()
            definitions[self._names[pointer, alone]] = self._schema(self._find(pointer), pointer, 0, alone=alone)
        if self._any:
            definitions[_ANY] = _ANYTHING
        return {"$ref": first, "$defs": definitions}

    def _schema(self, node: Any, place: str, depth: int, *, alone: bool) -> Schema:
        empty = node is True or (isinstance(node, Mapping) and all(says_nothing(str(key)) for key in node))
        if alone and empty:
            return self._anything()
        if isinstance(node, bool):
            return node
        if not isinstance(node, Mapping):
            raise ConstraintError(f"At {place}: a schema is an object or a truth value, not {type(node).__name__}.")
        self._nodes += 1
        if depth > MOST_DEPTH:
            raise ConstraintError(f"At {place}: schemas are nested more than {MOST_DEPTH} deep.")
        if self._nodes > MOST_NODES:
            raise ConstraintError(f"The schema has more than {MOST_NODES:,} schemas in it.")
        said = {str(key): value for key, value in node.items() if not says_nothing(str(key))}
        result: dict[str, Any] = {}
        for key, value in said.items():
            result.update(self._keyword(key, value, f"{place}/{key}", depth + 1, alone=alone, single=len(said) == 1))
        if "oneOf" in result and "discriminator" in node:
            self._tell_apart(result, node, place, depth + 1)
        _check_type(result.get("type"), place)
        narrow.text(result, node.get("format"), place)
        narrow.numbers(result, place)
        narrow.lists(result, node.get("uniqueItems"), place)
        objects.names(result, self._followed(node.get("propertyNames")), place)
        objects.count(result, place)
        if alone and not {"allOf", "$ref", *ALTERNATIVES}.intersection(result):
            self._close(result)
        return result

    def _keyword(self, key: str, value: Any, place: str, depth: int, *, alone: bool, single: bool) -> dict[str, Any]:
        """What a keyword becomes. ``single``: it is the only one of its schema."""
        if key in KEPT:
            return {key: _plain(value, place)}
        if key == "$ref":
            return {key: self._refer(value, place, alone=alone and single)}
        if key in INSIDE:
            return {key: self._schema(value, place, depth, alone=alone)}
        if key in LISTS:
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise ConstraintError(f"At {place}: this must be a list of schemas.")
            parts = [(f"{place}/{number}", part) for number, part in enumerate(value)]
            if key == "prefixItems":
                return {key: [self._schema(part, where, depth, alone=alone) for where, part in parts]}
            free = alone and single and key in ALTERNATIVES
            return {key: [self._schema(part, where, depth, alone=free) for where, part in parts]}
        if key in NAMED:
            if not isinstance(value, Mapping):
                raise ConstraintError(f"At {place}: this must be an object of schemas.")
            named = ((str(name), f"{place}/{name}", part) for name, part in value.items())
            return {key: {name: self._schema(part, where, depth, alone=alone) for name, where, part in named}}
        if key not in UNDERSTOOD:
            near = difflib.get_close_matches(key, UNDERSTOOD, n=1, cutoff=0.8)
            hint = f"Did you mean {near[0]!r}?" if near else "Leave it out, or say the same in other words."
            raise ConstraintError(f"At {place}: the keyword {key!r} cannot be kept to while generating. {hint}")
        return {}

    def _anything(self) -> Schema:
        """Any JSON value whose numbers are bounded as elsewhere."""
        self._any = True
        return {"$ref": f"#/$defs/{_ANY}"}

    def _close(self, result: dict[str, Any]) -> None:
        """Leave no room for what a schema does not speak of."""
        if "properties" in result and "patternProperties" not in result:
            result.setdefault("additionalProperties", False)
        elif result.get("type") == "object" and "additionalProperties" not in result:
            result["additionalProperties"] = self._anything()
        if result.get("type") == "array" and "items" not in result:
            result["items"] = self._anything()

    def _tell_apart(self, result: dict[str, Any], node: Mapping[str, Any], place: str, depth: int) -> None:
        """Objects that a required property tells apart: at most one of them can fit, so any of them may."""
        known = node["discriminator"]
        tag = known.get("propertyName") if isinstance(known, Mapping) else None
        members = [self._followed(member) for member in node["oneOf"]]
        values: list[Any] = []
        for member in members:
            described = member.get("properties", {}).get(tag, {}) if isinstance(member, Mapping) else {}
            values += [described["const"]] if "const" in described else described.get("enum", [None])
        if None in values or len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
            return
        tagged = [{**member, "required": [tag, *member.get("required", ())]} for member in members]
        del result["oneOf"]
        result["anyOf"] = [self._schema(member, f"{place}/oneOf", depth, alone=True) for member in tagged]

    def _refer(self, pointer: Any, place: str, *, alone: bool) -> str:
        """A reference to what a reference points at, under ``$defs``."""
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            raise ConstraintError(f"At {place}: {pointer!r} refers to another document; put what it means under $defs.")
        if (pointer, alone) not in self._names:
            self._find(pointer)
            self._names[pointer, alone] = f"d{len(self._names)}"
            self._open.append((pointer, alone))
        return f"#/$defs/{self._names[pointer, alone]}"

    def _followed(self, node: Any) -> Any:
        """The schema itself where one only refers to it."""
        for _ in range(MOST_DEPTH):
            if not isinstance(node, Mapping) or not isinstance(node.get("$ref"), str):
                break
            node = self._find(node["$ref"])
        return node

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


def _check_type(kinds: Any, place: str) -> None:
    listed = [] if kinds is None else kinds if isinstance(kinds, list) else [kinds]
    for kind in listed:
        if kind not in TYPES:
            raise ConstraintError(f"At {place}/type: there is no type {kind!r}. Known: {', '.join(sorted(TYPES))}.")


def _plain(value: Any, place: str) -> Any:
    """A JSON value, copied."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConstraintError(f"At {place}: this is no JSON: {error}.") from None
