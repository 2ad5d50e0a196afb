"""LangChain classes: ``ChatLocal`` and ``LocalLLM`` for any model, two classes per family of the catalog,
``LocalEmbeddings``.

Needs langchain-core; nothing of it is imported before one of these names is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from local_llms.catalog import class_names
from local_llms.errors import MissingDependency, suggestion

if TYPE_CHECKING:
    from local_llms.langchain.chat import ChatLocal as ChatLocal
    from local_llms.langchain.embeddings import LocalEmbeddings as LocalEmbeddings
    from local_llms.langchain.llm import LocalLLM as LocalLLM

    # The classes of the families that come with the package; the real ones are made from the catalog.
    class AlpacaLLM(LocalLLM):
        """Answers in the format of the family alpaca."""

    class ChatAlpaca(ChatLocal):
        """Answers in the format of the family alpaca."""

    class ChineseAlpacaLLM(LocalLLM):
        """Answers in the format of the family chinese-alpaca."""

    class ChatChineseAlpaca(ChatLocal):
        """Answers in the format of the family chinese-alpaca."""

    class DollyLLM(LocalLLM):
        """Answers in the format of the family dolly."""

    class ChatDolly(ChatLocal):
        """Answers in the format of the family dolly."""

    class GLMLLM(LocalLLM):
        """Answers in the format of the family glm."""

    class ChatGLM(ChatLocal):
        """Answers in the format of the family glm."""

    class GuanacoLLM(LocalLLM):
        """Answers in the format of the family guanaco."""

    class ChatGuanaco(ChatLocal):
        """Answers in the format of the family guanaco."""

    class LlamaLLM(LocalLLM):
        """Answers in the format of the family llama."""

    class ChatLlama(ChatLocal):
        """Answers in the format of the family llama."""

    class RWKVLLM(LocalLLM):
        """Answers in the format of the family rwkv."""

    class ChatRWKV(ChatLocal):
        """Answers in the format of the family rwkv."""

    class VicunaLLM(LocalLLM):
        """Answers in the format of the family vicuna."""

    class ChatVicuna(ChatLocal):
        """Answers in the format of the family vicuna."""


_HOMES = {"ChatLocal": "chat", "LocalLLM": "llm", "LocalEmbeddings": "embeddings"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(_module(_HOMES[name]), name)
    families = class_names() if not name.startswith("_") else {}
    if name in families:
        return _module("families").family_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{suggestion(name, [*_HOMES, *families])}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *class_names()])


def _module(name: str) -> Any:
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "langchain_core":
            raise
        raise MissingDependency("langchain-core", extra="langchain", purpose="local_llms.langchain") from error
