"""What an answer must look like, as a value: checked, bounded, and equal where it means the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from local_llms.constraints.formats import portable
from local_llms.constraints.limits import MOST_CHOICES, check_size
from local_llms.constraints.prepare import prepare
from local_llms.constraints.schema import SchemaLike, json_schema_of
from local_llms.errors import ConstraintError, OptionError
from local_llms.types import SamplingParams

_JSON_START = "start: /[ \\n]?/ value\n"
"""Many models begin an answer with a space or a new line, whatever it is; JSON has room for one."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """A grammar in the syntax of llguidance, a dialect of Lark's.

    ``stops``: whether stop strings still end the answer, where the grammar allows it to end. That is so where free text
    is among what it allows; elsewhere the grammar alone says when the answer is complete.
    """

    source: str
    stops: bool = False


def json_value(schema: SchemaLike | Any) -> str:
    """The part of a grammar that is a JSON document of a schema, written on one line. Raises ConstraintError.

    ``{"a": 1, "b": [2, 3]}``: one space behind each comma and colon and none elsewhere, which is how models have seen
    most short JSON, and where a small one does not lose itself in blanks.
    """
    if isinstance(schema, Mapping):
        try:
            # Equal schemas are prepared once; the order of properties counts.
            return _json_value(json.dumps(schema))
        except (TypeError, ValueError, RecursionError):
            return _written(schema)
    return _json_value(schema) if isinstance(schema, Hashable) else _written(schema)


@lru_cache(maxsize=64)
def _json_value(schema: Any) -> str:
    return _written(schema)


def _written(schema: Any) -> str:
    spacing = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
    return "%json " + json.dumps({"x-guidance": spacing, **prepare(json_schema_of(schema))})


def json_document(schema: SchemaLike | Any) -> Constraint:
    """JSON that is valid under a schema; see ``json_schema_of`` for what counts as one. Raises ConstraintError."""
    return Constraint(f"{_JSON_START}value: {json_value(schema)}")


def matching(pattern: str) -> Constraint:
    """Text that a regular expression matches as a whole, in the syntax of Rust's regex crate: no looking around and no
    references back. Raises ConstraintError.
    """
    if not isinstance(pattern, str) or not pattern:
        raise ConstraintError("regex= takes a regular expression as text.")
    check_size("The regular expression", pattern)
    return Constraint(f"start: {terminal(portable(pattern))}")


def one_of(choices: Sequence[str]) -> Constraint:
    """One of several texts, none empty. Raises ConstraintError."""
    if isinstance(choices, str) or not isinstance(choices, Sequence):
        raise ConstraintError("choices= takes a list of texts.")
    if not choices or not all(isinstance(one, str) and one for one in choices):
        raise ConstraintError("choices= takes at least one text, and none may be empty.")
    if len(choices) > MOST_CHOICES:
        raise ConstraintError(f"choices= has {len(choices):,} texts; at most {MOST_CHOICES:,} are taken.")
    listed = "|".join(literal(one) for one in dict.fromkeys(choices))
    check_size("The list of choices", listed)
    return Constraint(f"start: {terminal(listed)}")


def of_grammar(source: str) -> Constraint:
    """Text of a context-free grammar in the syntax of llguidance, whose first rule is ``start``.

    See https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md. Raises ConstraintError.
    """
    if not isinstance(source, str) or not source.strip():
        raise ConstraintError("grammar= takes a grammar as text, with a rule called start.")
    check_size("The grammar", source)
    return Constraint(source)


def constraint_of(
    *,
    schema: SchemaLike | Any = None,
    regex: str | None = None,
    choices: Sequence[str] | None = None,
    grammar: str | None = None,
) -> Constraint | None:
    """The one that was given, or None. Raises ConstraintError, or OptionError where several were given."""
    ways: tuple[tuple[str, Callable[[Any], Constraint], Any], ...] = (
        ("schema", json_document, schema),
        ("regex", matching, regex),
        ("choices", one_of, choices),
        ("grammar", of_grammar, grammar),
    )
    given = [(name, make, value) for name, make, value in ways if value is not None]
    if len(given) > 1:
        names = " and ".join(f"{name}=" for name, _, _ in given)
        raise OptionError(f"{names} contradict each other: an answer can be held to one of them.")
    for _, make, value in given:
        return make(value)
    return None


CONSTRAINTS = frozenset({"schema", "regex", "choices", "grammar"})
"""What ``constraint_of`` takes."""


def heed(constraint: Constraint, params: SamplingParams, stop: Sequence[str] | None) -> SamplingParams:
    """The parameters of a constrained request, whose stop strings are those that still count.

    ``stop``: what the caller gave. Raises OptionError where that contradicts the constraint.
    """
    if constraint.stops:
        return params
    if stop:
        raise OptionError(
            "stop= cannot be combined with a constraint: the answer ends where its schema or grammar does. "
            "Leave one of them out."
        )
    return replace(params, stop=())


def literal(text: str) -> str:
    """A regular expression that matches a text and nothing else. Raises ConstraintError."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConstraintError(f"{text!r} holds half a character, which no answer can.") from None
    return "".join(one if one.isalnum() or ord(one) > 127 else f"\\x{ord(one):02x}" for one in text)


def terminal(pattern: str) -> str:
    """A regular expression as a grammar writes it: between slashes, on one line."""
    written, escaped = [], False
    for one in pattern:
        if one == "/" and not escaped:
            written.append("\\/")
        elif one == "\n":
            written.append("n" if escaped else "\\n")
        else:
            written.append(one)
        escaped = one == "\\" and not escaped
    return f"/{''.join(written)}/"
