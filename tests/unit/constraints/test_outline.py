"""The line that shows a model what to answer with."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from local_llms.constraints import outline


class Town(BaseModel):
    name: str = Field(description="of the town")
    country: str


class Person(BaseModel):
    """Someone."""

    name: str = Field(description="the first name")
    age: int
    height: float | None = None
    kind: Literal["adult", "child"]
    tags: list[str]
    town: Town
    friend: Person | None = None
    sure: bool


def test_a_model():
    assert outline(Town) == '{"name": "<of the town>", "country": "<country>"}'


def test_every_kind_of_field():
    line = outline(Person)
    for part in (
        '"name": "<the first name>"',
        '"age": <age>',
        '"height": <height> or null',
        '"kind": "adult" or "child"',
        '"tags": ["<tags>", ...]',
        '"town": {"name": "<of the town>", "country": "<country>"}',
        '"sure": true or false',
    ):
        assert part in line
    # What goes round and round is shown so often, and not for ever.
    assert "..." in line
    assert len(line) < 4000


@pytest.mark.parametrize(
    ("schema", "line"),
    [
        ({"const": {"a": "é"}}, '{"a": "é"}'),
        ({"enum": [1, "x", None]}, '1 or "x" or null'),
        ({"type": "string", "format": "date"}, '"<date>"'),
        ({"type": "string"}, '"<text>"'),
        ({"type": "array", "items": {"type": "integer", "description": "a year"}}, "[<a year>, ...]"),
        ({"type": "object"}, "{...}"),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "boolean"}}}, "true or false"),
        ({"oneOf": [{"type": "null"}, {"type": "string", "description": "x"}]}, 'null or "<x>"'),
        ({"$ref": "#/$defs/missing"}, "<text>"),
    ],
    ids=json.dumps,
)
def test_a_schema(schema: dict[str, Any], line: str):
    assert outline(schema) == line


def test_one_that_is_too_long_is_left_out():
    long = {"type": "object", "properties": {f"a property of number {n}": {"type": "string"} for n in range(100)}}
    assert outline(long) == ""
    short = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(100)}}
    assert outline(short).count("<p") == 100
