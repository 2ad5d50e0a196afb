"""The keywords of JSON Schema, by what becomes of them."""

from __future__ import annotations

TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})

_VALUES = "type enum const required pattern multipleOf"
_LEAST_AND_MOST = "minItems maxItems minLength maxLength minProperties maxProperties"
_BOUNDS = "minimum maximum exclusiveMinimum exclusiveMaximum"
KEPT = frozenset(" ".join((_VALUES, _LEAST_AND_MOST, _BOUNDS)).split())
"""Have a plain value."""
INSIDE = frozenset({"items", "additionalProperties"})
"""Hold a schema of something inside the value."""
ALTERNATIVES = frozenset({"anyOf", "oneOf"})
LISTS = frozenset({*ALTERNATIVES, "allOf", "prefixItems"})
"""Hold a list of schemas."""
NAMED = frozenset({"properties", "patternProperties"})
"""Hold schemas by name."""
UNDERSTOOD = frozenset({"$ref", "format", "propertyNames", "uniqueItems", *KEPT, *INSIDE, *LISTS, *NAMED})

_IDENTITY = "$schema $id $anchor $comment $defs definitions"
_ANNOTATIONS = "title description default example examples deprecated readOnly writeOnly strict discriminator"
_CONTENT = "contentMediaType contentEncoding contentSchema externalDocs xml"
_SAYS_NOTHING = frozenset(" ".join((_IDENTITY, _ANNOTATIONS, _CONTENT)).split())


def says_nothing(keyword: str) -> bool:
    """Whether a keyword excludes no value: an annotation, a name, or an extension ("x-…")."""
    return keyword in _SAYS_NOTHING or keyword.startswith("x-")
