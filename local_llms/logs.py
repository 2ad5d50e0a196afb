"""Log lines that a person can read and a program too.

They go to loggers below "local_llms" and are silent unless the application asks for them: a request's at the level
DEBUG, loading and freeing at INFO. Each record has two attributes of its own, for a formatter that writes JSON:
``event``, what happened in a few words, and ``fields``, a dictionary. No line has anything of a prompt or an answer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping


def log_event(logger: logging.Logger, level: int, event: str, fields: Mapping[str, object]) -> None:
    """Tell of something that happened."""
    if logger.isEnabledFor(level):
        text = " ".join(f"{name}={_short(value)}" for name, value in fields.items())
        logger.log(level, "%s: %s", event, text, extra={"event": event, "fields": dict(fields)})


def _short(value: object) -> object:
    return f"{value:.3f}" if isinstance(value, float) else value
