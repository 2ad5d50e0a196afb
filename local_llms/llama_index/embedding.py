"""A local embedding model for llama-index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from pydantic import model_validator

from local_llms.adapter import ModelFields
from local_llms.catalog import default_model
from local_llms.errors import OptionError


class LocalEmbedding(ModelFields, BaseEmbedding):
    """Turns texts into vectors of length 1 on this machine; ``LocalEmbedding()`` takes the small default model.

    A vector has as many numbers as ``loaded().info.embedding_size`` says, 384 for the default model; the cosine of two
    is their dot product.

    The fields are those of ``LoadingOptions``. ``embed_batch_size`` texts are computed at a time. A text longer than
    the model's context is cut to it. ``model_name``, llama-index's own field, says the same as ``model``.

    Wrong options raise OptionError or UnknownOption. Embedding raises UnsupportedFeature where the model makes no
    embeddings, EngineClosed after ``close``, and at the first use what loading raises: ModelNotFound, ModelFileError,
    MissingDependency or DownloadError.
    """

    model_kind: ClassVar[Literal["generate", "embed"]] = "embed"
    ignored_names: ClassVar[frozenset[str]] = frozenset({"class_name"})

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        model, name = cls._path_as_text(values.get("model")), values.get("model_name")
        if model is not None and name not in (None, model):
            raise OptionError(f"{cls.__name__} was given model={model!r} and model_name={name!r}. Keep one of them.")
        default = default_model("embed")
        given = model or (name if name != default else None)
        return {**values, "model": given, "model_name": given or default}

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in a serialized form."""
        return cls.__name__

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, without the special tokens around it: for text splitters."""
        return self.loaded().tokenize(text)

    def _get_query_embedding(self, query: str) -> Embedding:
        return self.loaded().embed([query])[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return (await self._aget_text_embeddings([query]))[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return self.loaded().embed([text])[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self.loaded().embed(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await (await self.aloaded()).aembed(texts)
