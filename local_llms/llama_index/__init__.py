"""llama-index classes: ``LocalLLM`` for any model, one class per family of the catalog, ``LocalEmbedding``.

Needs llama-index-core; nothing of it is imported before one of these names is used.

llama-index counts tokens with a tokenizer of its own for GPT-3.5, which its wheel contains. To have it count with the
model's, set ``Settings.tokenizer = llm.tokenize``, or give ``tokenizer=llm.tokenize`` to ``TokenCountingHandler``,
``SentenceSplitter`` and ``PromptHelper``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from local_llms.catalog import class_names
from local_llms.errors import MissingDependency, suggestion

if TYPE_CHECKING:
    from local_llms.llama_index.embedding import LocalEmbedding as LocalEmbedding
    from local_llms.llama_index.llm import LocalLLM as LocalLLM

    # The classes of the families that come with the package; the real ones are made from the catalog.
    class AlpacaLLM(LocalLLM):
        """Answers in the format of the family alpaca."""

    class ChineseAlpacaLLM(LocalLLM):
        """Answers in the format of the family chinese-alpaca."""

    class DollyLLM(LocalLLM):
        """Answers in the format of the family dolly."""

    class GLMLLM(LocalLLM):
        """Answers in the format of the family glm."""

    class GuanacoLLM(LocalLLM):
        """Answers in the format of the family guanaco."""

    class LlamaLLM(LocalLLM):
        """Answers in the format of the family llama."""

    class RWKVLLM(LocalLLM):
        """Answers in the format of the family rwkv."""

    class VicunaLLM(LocalLLM):
        """Answers in the format of the family vicuna."""


_HOMES = {"LocalLLM": "llm", "LocalEmbedding": "embedding"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(_module(_HOMES[name]), name)
    families = _family_classes() if not name.startswith("_") else []
    if name in families:
        return _module("families").family_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{suggestion(name, [*_HOMES, *families])}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_family_classes()])


def _family_classes() -> list[str]:
    return [name for name, (_, kind) in class_names().items() if kind == "llm"]


def _module(name: str) -> Any:
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "llama_index":
            raise
        raise MissingDependency("llama-index-core", extra="llama-index", purpose="local_llms.llama_index") from error
