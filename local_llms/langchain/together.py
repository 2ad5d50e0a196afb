"""Batches whose inputs are under way at the same time, so that the engine decodes them together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, TypeVar, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_config_list

from local_llms.options import LoadingOptions

OutputT = TypeVar("OutputT")


class Together(Runnable[LanguageModelInput, OutputT]):
    """Stands before LangChain's own class among the bases of one that has the fields of ``LoadingOptions``.

    LangChain runs as many inputs of a batch at a time as there are cores and four more, too few to fill the engine's
    batch, and in async all of them, too many for its queue.
    """

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[OutputT]:
        """Answer many inputs, decoded together; ``max_concurrency`` of the config limits how many at a time."""
        configs = self._limited(config, len(inputs))
        return Runnable.batch(self, inputs, configs, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[OutputT]:
        """Like ``batch``, without blocking the event loop."""
        configs = self._limited(config, len(inputs))
        return await Runnable.abatch(self, inputs, configs, return_exceptions=return_exceptions, **kwargs)

    def batch_as_completed(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """Like ``batch``; each answer comes with its input's number as soon as it is there."""
        configs = self._limited(config, len(inputs))
        if return_exceptions:
            return Runnable.batch_as_completed(self, inputs, configs, return_exceptions=True, **kwargs)
        return Runnable.batch_as_completed(self, inputs, configs, **kwargs)

    def abatch_as_completed(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Any]]:
        """Like ``batch_as_completed``, without blocking the event loop."""
        configs = self._limited(config, len(inputs))
        if return_exceptions:
            return Runnable.abatch_as_completed(self, inputs, configs, return_exceptions=True, **kwargs)
        return Runnable.abatch_as_completed(self, inputs, configs, **kwargs)

    def _at_once(self) -> int:
        """How many inputs are under way: enough to fill the engine's batch, with some in line."""
        options = cast(LoadingOptions, self)
        return min(2 * options.max_parallel, options.max_parallel + options.max_queue)

    def _limited(self, config: RunnableConfig | Sequence[RunnableConfig] | None, length: int) -> list[RunnableConfig]:
        """One config per input; where none says ``max_concurrency``, it is ours."""
        at_once = self._at_once()
        configs = get_config_list(config, length)
        return [{**one, "max_concurrency": one.get("max_concurrency") or at_once} for one in configs]
