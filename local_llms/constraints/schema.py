"""What callers give as a schema → JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import FunctionType
from typing import Any, is_typeddict

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from local_llms.constraints.formats import PATTERNS
from local_llms.errors import ConstraintError

SchemaLike = Mapping[str, Any] | type[Any] | str
"""A JSON Schema as a dictionary or as JSON text, a pydantic model, a TypedDict, a dataclass, or another type that
pydantic knows, such as ``list[int]``."""


def json_schema_of(schema: SchemaLike | Any) -> dict[str, Any]:
    """The JSON Schema that a caller means. Raises ConstraintError where it means none."""
    if isinstance(schema, str):
        return _parsed(schema)
    if isinstance(schema, Mapping):
        return dict(schema)
    if schema is bool or schema is None or isinstance(schema, FunctionType):
        raise ConstraintError("schema= takes a JSON Schema, a pydantic model, a TypedDict or a dataclass.")
    try:
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            return schema.model_json_schema(schema_generator=_Generator)
        return TypeAdapter(schema).json_schema(schema_generator=_Generator)
    except (PydanticUserError, PydanticInvalidForJsonSchema) as error:
        name = getattr(schema, "__name__", None) or repr(schema)
        hint = " Before Python 3.12 import TypedDict from typing_extensions." if is_typeddict(schema) else ""
        raise ConstraintError(f"There is no JSON Schema for {name}: {error.message}.{hint}") from error


def _parsed(text: str) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise ConstraintError(f"The schema is a text, and no JSON: {error}.") from None
    if not isinstance(schema, dict):
        raise ConstraintError(f"A JSON Schema is an object, not {type(schema).__name__}.")
    return schema


class _Generator(GenerateJsonSchema):
    """Schemas that say what pydantic accepts as exactly as a mask needs it."""

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """A number; pydantic would take a text as well, and describes it by what no mask can be made of."""
        number = core_schema.float_schema()
        if "ge" in schema:
            number["ge"] = float(schema["ge"])
        if "gt" in schema:
            number["gt"] = float(schema["gt"])
        if "le" in schema:
            number["le"] = float(schema["le"])
        if "lt" in schema:
            number["lt"] = float(schema["lt"])
        if "multiple_of" in schema:
            number["multiple_of"] = float(schema["multiple_of"])
        return self.float_schema(number)

    def set_schema(self, schema: core_schema.SetSchema) -> JsonSchemaValue:
        """A list; pydantic makes one item of equal ones, so they do no harm unless their number counts."""
        return _equal_items_allowed(super().set_schema(schema))

    def frozenset_schema(self, schema: core_schema.FrozenSetSchema) -> JsonSchemaValue:
        """Like a set."""
        return _equal_items_allowed(super().frozenset_schema(schema))

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Keys that are no texts are described by what a text of them looks like."""
        result = super().dict_schema(schema)
        keys = self.generate_inner(schema["keys_schema"]) if "keys_schema" in schema else {}
        pattern = _KEYS.get(keys.get("type", "")) or PATTERNS.get(keys.get("format", ""))
        if pattern is not None and "patternProperties" not in result:
            values = result.pop("additionalProperties", True)
            result.pop("propertyNames", None)
            result.update(patternProperties={f"^(?:{pattern})$": values}, additionalProperties=False)
        return result


_KEYS = {
    "integer": "-?[1-9][0-9]{0,14}|0",
    "number": r"-?(?:[1-9][0-9]{0,14}|0)(?:\.[0-9]{1,9})?",
    "boolean": "true|false",
}


def _equal_items_allowed(result: JsonSchemaValue) -> JsonSchemaValue:
    if result.get("minItems", 0) < 2:
        result.pop("uniqueItems", None)
    return result
