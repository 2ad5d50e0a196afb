"""What an answer must look like → which tokens may come next.

A JSON Schema, a regular expression, a list of choices or a grammar becomes a mask on a row of logits, on every backend,
by the library llguidance.
"""

from local_llms.constraints.compiler import Compiled, Compiler
from local_llms.constraints.matcher import Matcher
from local_llms.constraints.outline import outline
from local_llms.constraints.schema import SchemaLike, json_schema_of
from local_llms.constraints.spec import (
    CONSTRAINTS,
    Constraint,
    constraint_of,
    heed,
    json_document,
    json_value,
    literal,
    matching,
    of_grammar,
    one_of,
    terminal,
)

__all__ = [
    "CONSTRAINTS",
    "Compiled",
    "Compiler",
    "Constraint",
    "Matcher",
    "SchemaLike",
    "constraint_of",
    "heed",
    "json_document",
    "json_schema_of",
    "json_value",
    "literal",
    "matching",
    "of_grammar",
    "one_of",
    "outline",
    "terminal",
]
