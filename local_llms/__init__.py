"""Language models on your own machine, for LangChain and llama-index.

Importing this package imports no library; each name below is imported when it is first used. The LangChain classes are
here and in ``local_llms.langchain``, those for llama-index in ``local_llms.llama_index``.

Every family of the catalog has its classes here: ``dir(local_llms)`` has more names than ``__all__``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from local_llms.callbacks import PrintCallback as PrintCallback
    from local_llms.callbacks import RichCallback as RichCallback
    from local_llms.callbacks import TokenCallback as TokenCallback
    from local_llms.catalog import ModelCard as ModelCard
    from local_llms.catalog import list_models as list_models
    from local_llms.errors import LocalLLMError as LocalLLMError
    from local_llms.langchain import GLMLLM as GLMLLM
    from local_llms.langchain import RWKVLLM as RWKVLLM
    from local_llms.langchain import AlpacaLLM as AlpacaLLM
    from local_llms.langchain import ChatAlpaca as ChatAlpaca
    from local_llms.langchain import ChatChineseAlpaca as ChatChineseAlpaca
    from local_llms.langchain import ChatDolly as ChatDolly
    from local_llms.langchain import ChatGLM as ChatGLM
    from local_llms.langchain import ChatGuanaco as ChatGuanaco
    from local_llms.langchain import ChatLlama as ChatLlama
    from local_llms.langchain import ChatLocal as ChatLocal
    from local_llms.langchain import ChatRWKV as ChatRWKV
    from local_llms.langchain import ChatVicuna as ChatVicuna
    from local_llms.langchain import ChineseAlpacaLLM as ChineseAlpacaLLM
    from local_llms.langchain import DollyLLM as DollyLLM
    from local_llms.langchain import GuanacoLLM as GuanacoLLM
    from local_llms.langchain import LlamaLLM as LlamaLLM
    from local_llms.langchain import LocalEmbeddings as LocalEmbeddings
    from local_llms.langchain import LocalLLM as LocalLLM
    from local_llms.langchain import VicunaLLM as VicunaLLM
    from local_llms.models import LoadedModel as LoadedModel
    from local_llms.models import load_model as load_model
    from local_llms.prompts import render_prompt as render_prompt
    from local_llms.types import Completion as Completion
    from local_llms.types import Message as Message
    from local_llms.types import TokenEvent as TokenEvent

    __version__: str

__all__ = [
    "GLMLLM",
    "RWKVLLM",
    "AlpacaLLM",
    "ChatAlpaca",
    "ChatChineseAlpaca",
    "ChatDolly",
    "ChatGLM",
    "ChatGuanaco",
    "ChatLlama",
    "ChatLocal",
    "ChatRWKV",
    "ChatVicuna",
    "ChineseAlpacaLLM",
    "Completion",
    "DollyLLM",
    "GuanacoLLM",
    "LlamaLLM",
    "LoadedModel",
    "LocalEmbeddings",
    "LocalLLM",
    "LocalLLMError",
    "Message",
    "ModelCard",
    "PrintCallback",
    "RichCallback",
    "TokenCallback",
    "TokenEvent",
    "VicunaLLM",
    "__version__",
    "list_models",
    "load_model",
    "render_prompt",
]

_HOMES = {
    "ChatLocal": "langchain",
    "Completion": "types",
    "LoadedModel": "models",
    "LocalEmbeddings": "langchain",
    "LocalLLM": "langchain",
    "LocalLLMError": "errors",
    "Message": "types",
    "ModelCard": "catalog",
    "PrintCallback": "callbacks",
    "RichCallback": "callbacks",
    "TokenCallback": "callbacks",
    "TokenEvent": "types",
    "list_models": "catalog",
    "load_model": "models",
    "render_prompt": "prompts",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name == "__version__":
        return import_module("importlib.metadata").version("local-llms")
    # Python asks here before it imports a submodule of that name, perhaps while the catalog itself is being imported.
    if name[:1].isupper():
        from local_llms.catalog import class_names

        if name in class_names():
            return getattr(import_module(f"{__name__}.langchain"), name)
    from local_llms.errors import suggestion

    raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{suggestion(name, __all__)}")


def __dir__() -> list[str]:
    from local_llms.catalog import class_names

    return sorted({*globals(), *__all__, *class_names()})
