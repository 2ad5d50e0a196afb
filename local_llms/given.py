"""What callers give, looked at before anything is done with it: a wrong kind of thing is told in a sentence."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from local_llms.callbacks import TokenCallback
from local_llms.errors import OptionError, suggestion
from local_llms.types import Message, Role

ItemT = TypeVar("ItemT")

PromptInput = str | Sequence[Message | Mapping[str, str]]
"""A string is one user message in the model's template; a list of messages is a conversation.

A message may be a dictionary of ``role`` and ``content`` as well.
"""

_CALLBACK = ("on_start", "on_token", "on_end", "on_error")


def messages_of(prompt: PromptInput) -> Sequence[Message]:
    """The conversation that a prompt is. Raises OptionError for what is none."""
    if isinstance(prompt, str):
        return [Message("user", prompt)]
    if isinstance(prompt, (bytes, Mapping)) or not isinstance(prompt, Sequence):
        raise OptionError(f"A prompt is a text or a list of messages, not {_kind(prompt)}.")
    return [_message(place, given) for place, given in enumerate(prompt, 1)]


def _message(place: int, given: object) -> Message:
    if isinstance(given, Mapping):
        unknown = sorted(map(str, given.keys() - {"role", "content"}))
        if unknown:
            raise OptionError(
                f"Message {place} has {unknown[0]!r}: a dictionary has role and content; more goes into a Message of "
                "local_llms.types."
            )
        role: Any = given.get("role")
        content: Any = given.get("content")
        given = Message(role, content)
    if not isinstance(given, Message):
        raise OptionError(
            f"Message {place} is {_kind(given)}; give a Message of local_llms.types, or a dictionary with role and "
            "content."
        )
    if not isinstance(given.content, str):
        raise OptionError(f"Message {place} needs text as its content, not {_kind(given.content)}.")
    if given.role not in get_args(Role):
        near = suggestion(given.role, get_args(Role)) if isinstance(given.role, str) else ""
        raise OptionError(f"Message {place} has the role {given.role!r}.{near}")
    return given


def checked_text(where: str, text: str) -> str:
    """The text. Raises OptionError, naming ``where``, for what is none."""
    if not isinstance(text, str):
        raise OptionError(f"{where} takes a text, not {_kind(text)}.")
    return text


def checked_texts(where: str, texts: Sequence[str]) -> Sequence[str]:
    """The texts. Raises OptionError, naming ``where``, for what is no list of them."""
    return [checked_text(where, text) for text in checked_list(where, texts)]


def checked_list(where: str, given: Iterable[ItemT]) -> Iterable[ItemT]:
    """What was given. Raises OptionError, naming ``where``, for a single text: it would be a list of letters."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise OptionError(f"{where} takes a list, not {_kind(given)}. Put brackets around a single one.")
    return given


def checked_callbacks(callbacks: Sequence[TokenCallback]) -> Sequence[TokenCallback]:
    """The callbacks. Raises OptionError for what cannot hear of tokens."""
    wrong: list[object] = [callbacks]
    if isinstance(callbacks, Sequence):
        wrong = [each for each in callbacks if not all(callable(getattr(each, name, None)) for name in _CALLBACK)]
    if wrong:
        raise OptionError(f"token_callbacks= takes a list of TokenCallback objects, not {_kind(wrong[0])}.")
    return callbacks


def checked_name(where: str, name: object) -> str | Path | None:
    """The name, or the path. Raises OptionError, naming ``where``, for what can be neither."""
    if name is None or isinstance(name, str):
        return name
    path = os.fspath(name) if isinstance(name, os.PathLike) else None
    if not isinstance(path, str):
        raise OptionError(f"{where} takes the name of a model or a path, not {_kind(name)}.")
    return Path(path)


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of the type {type(value).__name__}"
