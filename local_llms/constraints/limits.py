"""How large a constraint may be, so that none can take a process's time or memory."""

from __future__ import annotations

from local_llms.errors import ConstraintError

MOST_BYTES = 500_000
"""Of a schema as JSON, a regular expression, a grammar, or all choices together."""
MOST_DEPTH = 64
"""Schemas inside one another."""
MOST_NODES = 10_000
"""Schemas in one schema."""
MOST_CHOICES = 10_000


def check_size(what: str, text: str) -> None:
    """Raise ConstraintError for a text of more than ``MOST_BYTES``."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MOST_BYTES:
        raise ConstraintError(f"{what} has {size:,} bytes; at most {MOST_BYTES:,} are taken.")
