"""What an answer must look like → which tokens may come next.

A JSON Schema, a regular expression, a list of choices or a grammar becomes a mask on a row of logits, on every backend,
by the library llguidance.
"""

from local_llms.constraints.compiler import Compiled, Compiler
from local_llms.constraints.matcher import Matcher
from local_llms.constraints.schema import SchemaLike, json_schema_of
from local_llms.constraints.spec import (
    Constraint,
    constraint_of,
    json_document,
    json_value,
    literal,
    matching,
    of_grammar,
    one_of,
    terminal,
)

__all__ = [
    "Compiled",
    "Compiler",
    "Constraint",
    "Matcher",
    "SchemaLike",
    "constraint_of",
    "json_document",
    "json_schema_of",
    "json_value",
    "literal",
    "matching",
    "of_grammar",
    "one_of",
    "terminal",
]
