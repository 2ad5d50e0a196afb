"""Schemas of every kind on noise: valid, or refused before anything is generated."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import pytest

from local_llms.constraints import json_document
from local_llms.errors import ConstraintError
from local_llms.models import load_model
from local_llms.testing.scripted import ScriptedBackend
from local_llms.testing.scripted_model import scripted_model
from tests.unit.constraints.conftest import Write, noise
from tests.unit.constraints.schemas import schemas

FORMATS = jsonschema.Draft202012Validator.FORMAT_CHECKER


def check(schema: dict[str, object], text: str) -> None:
    validator = jsonschema.Draft202012Validator(schema, format_checker=FORMATS)
    validator.validate(json.loads(text, parse_constant=pytest.fail))


def test_200_schemas_by_the_engine():
    """Sixteen at a time, each at its own place in its own grammar."""
    wanted = schemas(200)

    def make() -> ScriptedBackend:
        return ScriptedBackend(noise, context_length=8192, cache_tokens=1 << 20)

    with scripted_model(make, template="plain") as path, load_model(path) as model:

        def answer(numbered: tuple[int, dict[str, object]]) -> str:
            number, schema = numbered
            return model.generate("x", schema=schema, temperature=2.0, top_k=0, seed=number, max_tokens=8000).text

        with ThreadPoolExecutor(16) as pool:
            for schema, text in zip(wanted, pool.map(answer, enumerate(wanted)), strict=True):
                check(schema, text)


@pytest.mark.parametrize("number", range(0, 200, 10))
def test_many_answers_of_a_schema(write: Write, number):
    for offset, schema in enumerate(schemas(200)[number : number + 10]):
        for seed in range(3):
            text = write(json_document(schema), 1000 * number + 10 * offset + seed)
            assert text is not None
            check(schema, text)


SUBTLE = [
    # A number is not rounded to a bound that is excluded.
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "exclusiveMinimum": 1e-7, "exclusiveMaximum": 1e-6},
    {"type": "integer", "minimum": 2.5, "maximum": 3.5},
    {"type": "integer", "exclusiveMinimum": -3, "exclusiveMaximum": -1},
    {"type": "integer", "minimum": 2**60},
    {"type": "number", "multipleOf": 0.5, "minimum": -2, "maximum": 2},
    # The length counts characters, not escapes.
    {"type": "string", "minLength": 2, "maxLength": 2},
    {"type": "string", "const": '\u0001\t"\\/é'},
    {"allOf": [{"type": "string", "minLength": 3}, {"pattern": "^b"}], "maxLength": 5},
    {"type": "string", "format": "date", "pattern": "^2"},
    {"oneOf": [{"type": "string", "maxLength": 2}, {"type": "integer"}]},
    {"$ref": "#/$defs/a/properties/b", "$defs": {"a": {"properties": {"b": {"enum": ["x"]}}}}},
    {"type": "array", "items": {"$ref": "#/prefixItems/0"}, "prefixItems": [{"type": "boolean"}], "maxItems": 3},
    {"type": "object", "required": ["x"], "additionalProperties": {"type": "boolean"}, "maxProperties": 2},
    {"type": "object", "minProperties": 1, "additionalProperties": {"type": "null"}, "maxProperties": 2},
    {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "boolean"}},
    {"allOf": [{"properties": {"a": {"type": "null"}}, "required": ["a"], "type": "object"}, {"required": ["b"]}]},
    {"type": "array", "uniqueItems": True, "maxItems": 1, "items": {"type": "integer"}},
    {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "integer"}},
]


@pytest.mark.parametrize("schema", SUBTLE, ids=json.dumps)
def test_subtle_ones(write: Write, schema):
    written = [write(json_document(schema), seed) for seed in range(60)]
    texts = [text for text in written if text is not None]
    assert len(texts) > 50
    for text in texts:
        check(schema, text)


def test_no_number_is_infinite_to_its_reader(write: Write):
    """Anything may come, but not 1e999."""
    for schema in ({}, {"type": "number"}, {"type": "array", "items": {}, "maxItems": 3}, {"type": "object"}):
        for seed in range(100):
            text = write(json_document(schema), seed)
            if text is not None:
                assert "Infinity" not in json.dumps(json.loads(text))


@pytest.mark.parametrize("schema", [{"type": "number"}, {"type": "number", "minimum": -3, "exclusiveMaximum": 1000}])
def test_a_number_comes_to_an_end(write: Write, schema):
    """It has nine decimals at most, and no exponent."""
    for seed in range(60):
        text = write(json_document(schema), seed)
        assert text is not None
        whole, _, decimals = text.strip().lstrip("-").partition(".")
        assert whole.isdecimal()
        assert len(whole) <= 19
        assert len(decimals) <= 9
        assert not decimals or decimals.isdecimal()


REFUSED = {
    "not": {"not": {"type": "string"}},
    "if": {"if": {"type": "string"}, "then": {"minLength": 2}},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "contains": {"type": "array", "contains": {"type": "integer"}},
    "uniqueItems": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
    "unevaluatedProperties": {"type": "object", "unevaluatedProperties": False},
    "minLength": {"type": "string", "minlength": 3},
    "type": {"type": "strin"},
    "format": {"type": "string", "format": "iban"},
    "look-around": {"type": "string", "pattern": "^(?!a)"},
    "another document": {"$ref": "https://example.com/schema.json"},
    "not there": {"$ref": "#/$defs/missing"},
    "requires itself": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "is empty": {"enum": []},
    "Unsatisfiable": {"type": "integer", "minimum": 5, "maximum": 3},
    "oneOf": {"oneOf": [{"type": "string"}, {"type": "string", "minLength": 3}]},
    "minProperties": {"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 3},
    "propertyNames": {"type": "object", "propertyNames": {"maxLength": 3}},
    "truth value": {"type": "array", "items": [{"type": "string"}]},
    "must be a number": {"type": "integer", "minimum": True},
    "beyond": {"type": "integer", "minimum": 1e20},
    "no JSON": {"enum": [float("nan")]},
    "nullable": {"type": "string", "nullable": True},
}


@pytest.mark.parametrize(("word", "schema"), REFUSED.items(), ids=REFUSED)
def test_what_cannot_be_kept_to_is_refused(compiler, word, schema):
    with pytest.raises(ConstraintError, match=word):
        compiler.compile(json_document(schema))


ITSELF = [
    {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    {"type": "array", "prefixItems": [{"$ref": "#"}], "items": {"type": "null"}, "minItems": 1},
    {"anyOf": [{"$ref": "#"}, {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}]},
    {
        "allOf": [{"$ref": "#/$defs/a"}],
        "$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}},
    },
    {"type": "object", "required": ["a"], "additionalProperties": {"$ref": "#"}},
]


@pytest.mark.parametrize("schema", ITSELF, ids=json.dumps)
def test_what_requires_itself_is_refused_however_it_does(schema):
    with pytest.raises(ConstraintError, match="requires itself"):
        json_document(schema)


ONLY_LOOKS_LIKE_IT = [
    {"type": "array", "prefixItems": [{"type": "null"}], "items": {"$ref": "#"}, "minItems": 1, "maxItems": 1},
    {"type": "object", "properties": {"a": {"$ref": "#"}}},
    {"anyOf": [{"type": "array", "items": {"$ref": "#"}, "minItems": 1, "maxItems": 1}, {"type": "null"}]},
    {"type": ["array", "null"], "items": {"$ref": "#"}, "minItems": 1, "maxItems": 1},
]


@pytest.mark.parametrize("schema", ONLY_LOOKS_LIKE_IT, ids=json.dumps)
def test_what_only_looks_like_it_is_written(write: Write, schema):
    texts = [write(json_document(schema), seed) for seed in range(10)]
    assert any(texts)
    for text in filter(None, texts):
        check(schema, text)


def test_a_refusal_names_the_place(compiler):
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string", "format": "x"}}}}
    with pytest.raises(ConstraintError, match="#/properties/a/items/format"):
        json_document(schema)


def test_schemas_are_bounded():
    deep: dict[str, object] = {"type": "integer"}
    for _ in range(70):
        deep = {"type": "array", "items": deep}
    with pytest.raises(ConstraintError, match="nested more than 64 deep"):
        json_document(deep)
    with pytest.raises(ConstraintError, match="more than 10,000 schemas"):
        json_document({"type": "object", "properties": {f"p{n}": {"type": "null"} for n in range(10_001)}})
    with pytest.raises(ConstraintError, match="at most 500,000"):
        json_document({"enum": ["x" * 600_000]})
    endless: dict[str, object] = {"type": "object"}
    endless["properties"] = {"again": endless}
    with pytest.raises(ConstraintError, match="nested"):
        json_document(endless)


def test_a_schema_cannot_loosen_the_rules(write: Write):
    """The library's own switches in a caller's schema do nothing."""
    schema = {"x-guidance": {"lenient": True, "whitespace_flexible": True}, "type": "array", "items": {"const": 1}}
    texts = {write(json_document(schema), seed) for seed in range(30)}
    assert not any("\n" in text.strip() or "  " in text for text in texts if text)
