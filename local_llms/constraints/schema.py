"""What callers give as a schema → JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, is_typeddict

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

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
    if schema is bool or schema is None:
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
        bounds = {name: schema[name] for name in ("ge", "le", "gt", "lt", "multiple_of") if name in schema}  # type: ignore[literal-required]
        return self.float_schema(core_schema.float_schema(**{name: float(value) for name, value in bounds.items()}))

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Pydantic tells the members apart by their tag, so each must have it, even where it has a default."""
        result = super().tagged_union_schema(schema)
        discriminator = schema["discriminator"]
        members = result.get("oneOf")
        if members and isinstance(discriminator, str):
            required = {"type": "object", "required": [discriminator]}
            return {"anyOf": [{"allOf": [member, required]} for member in members]}
        return result
