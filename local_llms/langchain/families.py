"""Two classes per family, made from the catalog: a new family file is new classes."""

from __future__ import annotations

import types
from functools import lru_cache
from typing import Any, ClassVar

from local_llms.catalog import class_names, find_family
from local_llms.langchain.chat import ChatLocal
from local_llms.langchain.llm import LocalLLM


def family_class(name: str) -> type[ChatLocal] | type[LocalLLM]:
    """The class of that name, one of ``class_names()``; the same object at every call, so that pickles find it."""
    family, kind = class_names()[name]
    return _make(name, family, find_family(family).title, ChatLocal if kind == "chat" else LocalLLM)


@lru_cache(maxsize=256)
def _make(
    name: str, family: str, title: str, base: type[ChatLocal] | type[LocalLLM]
) -> type[ChatLocal] | type[LocalLLM]:
    body = {
        "__module__": __package__,
        "__qualname__": name,
        "__doc__": f"{title}: ``{base.__name__}`` in the prompt format of the family {family}, whatever its file.",
        "__annotations__": {"family": ClassVar[str | None]},
        "family": family,
    }

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(body)

    return types.new_class(name, (base,), exec_body=fill)
