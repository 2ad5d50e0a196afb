"""From a template's source to a program that can be run: Jinja reads it, this package carries it out.

The environment is the one of Hugging Face's chat templates: ``ImmutableSandboxedEnvironment`` with ``trim_blocks`` and
``lstrip_blocks``, loop controls, and the ``generation`` tag, which marks answers for training and changes no text
(huggingface/transformers: src/transformers/utils/chat_template_utils.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from jinja2 import TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from local_llms.prompts.interpreter.budget import SOURCE, Budget, Failure
from local_llms.prompts.interpreter.functions import FUNCTIONS
from local_llms.prompts.interpreter.scope import Scope
from local_llms.prompts.interpreter.statements import Statement, compile_block, render_block
from local_llms.prompts.interpreter.values import Value

KEPT_PROGRAMS = 64
"""How many compiled templates are kept."""


class _Generation(Extension):
    """The tag ``generation``: its content, in a scope of its own."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        """The tag's node."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled template. ``reads``: the names that occur in it."""

    _block: Statement
    reads: frozenset[str]

    def run(self, budget: Budget, names: Mapping[str, Value]) -> str:
        """The text that it writes, with its spans. Raises Failure or RecursionError."""
        functions = Scope(FUNCTIONS, None, budget)
        scope = Scope(dict(names), functions, budget)
        try:
            return render_block(self._block, scope)
        finally:
            # A macro holds its scope and the scope holds the macro: without this the prompt would stay in memory.
            scope.names.clear()


@lru_cache(maxsize=KEPT_PROGRAMS)
def compile_template(source: str) -> Program:
    """Compile a template. Raises Failure or RecursionError."""
    if len(source) > SOURCE:
        raise Failure(f"it has {len(source)} characters; {SOURCE} are allowed")
    try:
        # Not ``Environment.parse``: to show a nicer traceback, that one executes code made from the template.
        tree = Parser(_environment(), source).parse()
    except TemplateSyntaxError as error:
        raise Failure(error.message or "it cannot be read", error.lineno) from None
    except ValueError as error:
        raise Failure(f"it cannot be read: {error}") from None
    return Program(compile_block(tree.body), frozenset(name.name for name in tree.find_all(nodes.Name)))


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
