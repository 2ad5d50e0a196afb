"""Whether any finite document fits a schema: one that requires itself would keep a model writing for ever."""

from __future__ import annotations

from typing import Any


def has_a_document(schema: dict[str, Any]) -> bool:
    """``schema`` is a prepared one: every reference points under its ``$defs``.

    What is looked for is the least set of definitions with a finite document, by adding to it until nothing changes.
    False is certain; True may be wrong where parts of a schema contradict each other.
    """
    definitions = schema.get("$defs", {})
    finite: set[str] = set()
    while True:
        found = {name for name, definition in definitions.items() if name not in finite and _ends(definition, finite)}
        if not found:
            return _ends(schema, finite)
        finite |= found


def _ends(node: Any, finite: set[str]) -> bool:
    if isinstance(node, bool):
        return node
    if "$ref" in node and node["$ref"].rpartition("/")[2] not in finite:
        return False
    if "enum" in node and not node["enum"]:
        return False
    if not all(_ends(part, finite) for part in node.get("allOf", ())):
        return False
    for key in ("anyOf", "oneOf"):
        if key in node and not any(_ends(part, finite) for part in node[key]):
            return False
    kinds = node.get("type")
    listed = kinds if isinstance(kinds, list) else [kinds]
    if not set(listed) <= {"object", "array"}:
        # Something that is neither an object nor a list, and so has nothing inside it, fits.
        return True
    return any(_object_ends(node, finite) if kind == "object" else _array_ends(node, finite) for kind in listed)


def _object_ends(node: dict[str, Any], finite: set[str]) -> bool:
    listed, others = node.get("properties", {}), node.get("additionalProperties", True)
    by_pattern = bool(node.get("patternProperties"))
    return all(
        _ends(listed[name], finite) if name in listed else by_pattern or _ends(others, finite)
        for name in node.get("required", ())
    )


def _array_ends(node: dict[str, Any], finite: set[str]) -> bool:
    least = node.get("minItems", 0)
    first = node.get("prefixItems", ())[:least]
    rest = node.get("items", True)
    return all(_ends(item, finite) for item in first) and (least <= len(first) or _ends(rest, finite))
