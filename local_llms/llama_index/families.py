"""One class per family, made from the catalog: a new family file is a new class."""

from __future__ import annotations

import types
from functools import lru_cache
from typing import Any, ClassVar

from local_llms.catalog import class_names, find_family
from local_llms.llama_index.llm import LocalLLM


def family_class(name: str) -> type[LocalLLM]:
    """The class of that name; the same object at every call, so that its instances can be pickled.

    ``name`` is one of ``class_names()`` that takes a string.
    """
    family, _ = class_names()[name]
    return _make(name, family, find_family(family).title)


@lru_cache(maxsize=256)
def _make(name: str, family: str, title: str) -> type[LocalLLM]:
    body = {
        "__module__": __package__,
        "__qualname__": name,
        "__doc__": f"{title}: ``LocalLLM`` that talks in the prompt format of the family {family}, whatever its file.",
        "__annotations__": {"family": ClassVar[str | None]},
        "family": family,
    }

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(body)

    return types.new_class(name, (LocalLLM,), exec_body=fill)
