"""A prompt that does not fit, as LangChain knows it: its middleware catches the error and asks for less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.exceptions import ContextOverflowError

from local_llms.errors import ContextOverflow


class ChatContextOverflow(ContextOverflow, ContextOverflowError):
    """``ContextOverflow`` of this package and ``ContextOverflowError`` of LangChain in one."""

    @classmethod
    def of(cls, error: ContextOverflow) -> ChatContextOverflow:
        """The same error, with its two numbers and its words."""
        made = cls.__new__(cls, *error.args)
        made.__dict__.update(error.__dict__)
        return made


@contextmanager
def known_to_langchain() -> Iterator[None]:
    """Raise a ContextOverflow so that LangChain knows it as well."""
    try:
        yield
    except ContextOverflow as error:
        raise ChatContextOverflow.of(error) from error
