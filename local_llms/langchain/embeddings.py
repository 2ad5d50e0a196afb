"""A local embedding model for LangChain."""

from __future__ import annotations

from typing import ClassVar, Literal

from langchain_core.embeddings import Embeddings

from local_llms.adapter import ModelFields

SLICE = 64
"""Texts computed at a time, so that other requests of the model get their turn in between."""


class LocalEmbeddings(ModelFields, Embeddings):
    """Turns texts into vectors of length 1 on this machine; ``LocalEmbeddings()`` takes the small default model.

    A vector has as many numbers as ``loaded().info.embedding_size`` says, 384 for the default model; the cosine of two
    is their dot product.

    The fields are those of ``LoadingOptions``. A text longer than the model's context is cut to it. Nothing is loaded
    before the first use, and equal models and loading options share one set of weights.

    Wrong options raise OptionError or UnknownOption. Embedding raises UnsupportedFeature where the model makes no
    embeddings, EngineClosed after ``close``, and at the first use what loading raises: ModelNotFound, ModelFileError,
    MissingDependency or DownloadError.
    """

    model_kind: ClassVar[Literal["generate", "embed"]] = "embed"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector per text, in their order."""
        handle = self.loaded()
        parts = [handle.embed(part) for part in _slices(texts)]
        return [vector for part in parts for vector in part]

    def embed_query(self, text: str) -> list[float]:
        """The vector of one text."""
        return self.loaded().embed([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Like ``embed_documents``, without blocking the event loop."""
        handle = await self.aloaded()
        parts = [await handle.aembed(part) for part in _slices(texts)]
        return [vector for part in parts for vector in part]

    async def aembed_query(self, text: str) -> list[float]:
        """Like ``embed_query``, without blocking the event loop."""
        return (await (await self.aloaded()).aembed([text]))[0]


def _slices(texts: list[str]) -> list[list[str]]:
    return [texts[start : start + SLICE] for start in range(0, len(texts), SLICE)]
