"""What callers give: choices, regular expressions, grammars, types."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import re
import uuid
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, EmailStr, Field, TypeAdapter
from typing_extensions import TypedDict

from local_llms.constraints import Constraint, constraint_of, heed, json_document, matching, of_grammar, one_of
from local_llms.constraints.formats import portable
from local_llms.errors import ConstraintError, OptionError
from local_llms.types import SamplingParams
from tests.unit.constraints.conftest import Write

ODD = [
    "yes",
    "yes, please",
    'a"b\\c',
    "日本語",
    "tab\there",
    "line\nend",
    "a/b",
    "(x|y)*",
    "[z]",
    "😀",
    " lead",
    "#{1}",
]


def test_choices_of_every_kind(write: Write):
    found = {write(one_of(ODD), seed) for seed in range(400)}
    assert found == set(ODD)


@pytest.mark.parametrize("wrong", [[], "abc", ["a", ""], ["a", 1], ["\ud800"], 5, ["x"] * 10_001])
def test_choices_that_are_none(wrong):
    with pytest.raises(ConstraintError):
        one_of(wrong)


PATTERNS = [
    r"\d+\w\s\S\D\W",
    r"[^\d]{2}[\w/]+",
    "a/b",
    r"a\/b",
    "x\ny",
    "x\\\ny",
    ".{3}",
    r"(?:foo|ba[rz]){2}",
    r"[]a]+",
    r"\\/",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_regular_expression_as_python_reads_it(write: Write, pattern):
    texts = [write(matching(pattern), seed) for seed in range(40)]
    for text in texts:
        assert text is None or re.fullmatch(pattern, text), (pattern, text)
    assert any(texts)


def test_what_matches_a_portable_pattern_matches_the_pattern():
    assert portable(r"\d[\w-]\\d") == r"[0-9][0-9A-Za-z_-]\\d"
    assert portable(r"[^\d]") == r"[^\p{Nd}]"
    assert portable(r"\D") == r"[^\p{Nd}]"
    assert portable(r"a\.b.[.]") == r"a\.b[^\n\r\x{2028}\x{2029}][.]"


@pytest.mark.parametrize("wrong", ["", "(", "a{2,1}", r"(a)\1", "(?<=a)b", 5, "x" * 600_000])
def test_regular_expressions_that_are_none(compiler, wrong):
    with pytest.raises(ConstraintError):
        compiler.compile(matching(wrong))


@pytest.mark.parametrize("wrong", ["", "hello", "start: missing", "begin: /a/", 'start: "a', 7])
def test_grammars_that_are_none(compiler, wrong):
    with pytest.raises(ConstraintError):
        compiler.compile(of_grammar(wrong))


def test_nothing_given_is_no_constraint():
    assert constraint_of() is None


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = Field(ge=1, le=9)


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: Annotated[str, Field(max_length=8)]


class Node(BaseModel):
    value: int
    left: Optional[Node] = None  # noqa: UP045 (as users write it)
    children: list[Node] = Field(default_factory=list, max_length=1)


class Everything(BaseModel):
    """A docstring with "quotes"."""

    maybe: int | None = None
    colour: Colour
    day: datetime.date
    moment: datetime.datetime
    clock: datetime.time
    span: datetime.timedelta
    price: decimal.Decimal = Field(gt=0, le=decimal.Decimal("99.5"))
    some: set[int]
    by_number: dict[int, Colour]
    by_day: dict[datetime.date, bool]
    by_colour: dict[Colour, int]
    pet: Cat | Dog = Field(discriminator="kind")
    number: uuid.UUID
    pair: tuple[int, str]
    one: Literal[1, "x", None]
    code: str = Field(pattern=r"^[A-Z]\d\D$")
    anything: Any = Field(description="Whatever you like.")


class Movie(TypedDict, total=False):
    title: str
    year: int


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


@pytest.mark.parametrize("kind", [Cat, Node, Everything, Movie, Point, list[Dog], Colour, int | None], ids=str)
def test_types(write: Write, kind):
    """What is written can be read as an instance."""
    read = TypeAdapter(kind)
    texts = [write(json_document(kind), seed) for seed in range(40)]
    for text in texts:
        if text is not None:
            read.validate_json(text)
    assert sum(text is not None for text in texts) > 20


def test_a_schema_as_text_and_as_dictionary():
    schema = Cat.model_json_schema()
    assert json_document(json.dumps(schema)) == json_document(schema)
    # The order of properties is the order in the answer.
    other = {"type": "object", "properties": {"b": {"type": "null"}, "a": {"type": "null"}}}
    same = {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}}
    assert json_document(other) != json_document(same)


def test_a_set_whose_size_counts_is_refused():
    """Equal items would become one."""
    assert json_document(Annotated[set[int], Field(min_length=1)])
    for kind in (Annotated[set[int], Field(min_length=2)], Annotated[frozenset[str], Field(min_length=3)]):
        with pytest.raises(ConstraintError, match="uniqueItems"):
            json_document(kind)


def test_which_stop_strings_count():
    """None where the constraint alone says when the answer is complete; all where free text is among what it allows."""
    params = SamplingParams(stop=("x",))
    assert heed(matching("a"), params, None).stop == ()
    assert heed(Constraint('start: "a"', stops=True), params, ["x"]).stop == ("x",)
    with pytest.raises(OptionError, match="stop="):
        heed(matching("a"), params, ["x"])


@pytest.mark.parametrize("wrong", ["no json", "[1]", 5, lambda: None, bool], ids=str)
def test_what_is_no_schema(wrong):
    with pytest.raises(ConstraintError):
        json_document(wrong)


def test_addresses(write: Write):
    pytest.importorskip("email_validator", reason="pydantic checks addresses with email-validator")
    read = TypeAdapter(list[EmailStr])
    schema = {"type": "array", "items": {"type": "string", "format": "email"}, "minItems": 3, "maxItems": 3}
    for seed in range(20):
        read.validate_json(write(json_document(schema), seed) or "")
