"""Narrower words for the names of an object's properties, where masks cannot say exactly the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local_llms.constraints.formats import portable
from local_llms.errors import ConstraintError


def names(result: dict[str, Any], described: Any, place: str) -> None:
    """Write ``propertyNames`` as properties, in place. Raises ConstraintError where that is not possible.

    ``described``: the schema of the names.
    """
    if "patternProperties" in result:
        result["patternProperties"] = {portable(name): value for name, value in result["patternProperties"].items()}
    if described is None or described is True:
        return
    said = dict(described) if isinstance(described, Mapping) else {"": None}
    for key in ("title", "description", "type"):
        if key != "type" or said.get("type") == "string":
            said.pop(key, None)
    listed = said.pop("enum", None)
    if "const" in said:
        listed = [said.pop("const")]
    pattern = said.pop("pattern", None)
    if said or (listed is not None and pattern is not None) or result.get("patternProperties"):
        raise ConstraintError(f"At {place}/propertyNames: only an enum or a pattern can be kept to here.")
    others = result.get("additionalProperties", True)
    if listed is not None:
        result["properties"] = {**{str(name): others for name in listed}, **result.get("properties", {})}
        result["additionalProperties"] = False
    elif pattern is not None:
        result["patternProperties"] = {portable(pattern): others}
        result["additionalProperties"] = False


def count(result: dict[str, Any], place: str) -> None:
    """Leave out a least number of properties that the required ones reach anyway, in place.

    Raises ConstraintError where there must be more: nothing keeps a model from writing a name twice, and the two would
    be one.
    """
    least = result.get("minProperties", 0)
    if not isinstance(least, int) or least <= len(set(result.get("required", ()))):
        result.pop("minProperties", None)
    elif least > 1:
        raise ConstraintError(
            f"At {place}/minProperties: more properties than the required ones cannot be asked for. List their names."
        )
