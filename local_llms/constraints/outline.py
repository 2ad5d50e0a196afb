"""A JSON Schema in a line that a model understands: what to answer with, by example."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from local_llms.constraints.schema import SchemaLike, json_schema_of

_DEEPEST = 5
_LONGEST = 4000
"""Characters; what is longer is left to the mask, which knows it anyway."""


def outline(schema: SchemaLike | Any) -> str:
    """``{"name": "<the person's name>", "age": <age>}`` for a schema with those properties; "" for one too long.

    Raises ConstraintError for what is no schema.
    """
    whole = json_schema_of(schema)
    written = _outline(whole, whole, 0, "")
    return written if len(written) <= _LONGEST else ""


def _outline(node: Any, whole: Mapping[str, Any], depth: int, label: str) -> str:
    """``label``: what to call the value where the schema does not describe it."""
    if not isinstance(node, Mapping) or depth > _DEEPEST:
        return "..."
    if "$ref" in node:
        return _outline({**_found(str(node["$ref"]), whole), **_without(node, "$ref")}, whole, depth + 1, label)
    if "const" in node or "enum" in node:
        return " or ".join(json.dumps(value, ensure_ascii=False) for value in node.get("enum", [node.get("const")]))
    said = str(node.get("description") or label or node.get("format") or "text")
    for key in ("anyOf", "oneOf"):
        if key in node:
            return " or ".join(_outline(part, whole, depth + 1, said) for part in node[key])
    if isinstance(node.get("allOf"), list) and len(node["allOf"]) == 1:
        return _outline({**node["allOf"][0], **_without(node, "allOf")}, whole, depth + 1, label)
    kind = node.get("type")
    if kind == "object" or "properties" in node:
        named = {str(name): one for name, one in node.get("properties", {}).items()}
        texts = {name: _outline(one, whole, depth + 1, name) for name, one in named.items()}
        inside = ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {text}" for name, text in texts.items())
        return "{" + (inside or "...") + "}"
    if kind == "array":
        return f"[{_outline(node.get('items', True), whole, depth + 1, said)}, ...]"
    if kind in ("null", "boolean"):
        return "null" if kind == "null" else "true or false"
    # In angles, since what looks like a value is taken for one.
    return f'"<{said}>"' if kind == "string" else f"<{said}>"


def _without(node: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name != key}


def _found(pointer: str, whole: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = whole
    for part in pointer.split("/")[1:]:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}
