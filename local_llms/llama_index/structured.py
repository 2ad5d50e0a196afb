"""Answers as objects: the structured predictions of llama-index, held to the object's schema."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictInProgressEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.llms.llm import LLM
from llama_index.core.program.streaming_utils import process_streaming_content_incremental
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.types import Model
from llama_index_instrumentation import get_dispatcher

from local_llms.adapter import GenerationFields

if TYPE_CHECKING:
    from llama_index.core.program.utils import FlexibleModel

_dispatcher = get_dispatcher(__name__)


class Structured(GenerationFields, LLM):
    """The four structured predictions, and by them ``as_structured_llm``.

    The model is shown the schema and its answer is held to it, so what comes back is an instance of it. They raise
    AnswerCut where ``max_tokens`` or the context cut the answer, and what ``chat`` raises.
    """

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Answer a filled-in prompt template with an object."""
        messages, options = self._begin(output_cls, prompt, llm_kwargs, prompt_args)
        return _ended(output_cls, self.chat(messages, **options))

    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Like ``structured_predict``, without blocking the event loop."""
        await self.aloaded()
        messages, options = self._begin(output_cls, prompt, llm_kwargs, prompt_args)
        return _ended(output_cls, await self.achat(messages, **options))

    def stream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Model | FlexibleModel, None, None]:
        """Answer a filled-in prompt template with an object that grows; the last one is whole."""
        messages, options = self._begin(output_cls, prompt, llm_kwargs, prompt_args)
        grown: Model | FlexibleModel | None = None
        last: ChatResponse | None = None
        for last in self.stream_chat(messages, **options):
            grown = _grown(output_cls, last, grown)
            yield grown
        if last is not None:
            yield _ended(output_cls, last)

    async def astream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Model | FlexibleModel, None]:
        """Like ``stream_structured_predict``, without blocking the event loop."""

        async def grow() -> AsyncGenerator[Model | FlexibleModel, None]:
            await self.aloaded()
            messages, options = self._begin(output_cls, prompt, llm_kwargs, prompt_args)
            grown: Model | FlexibleModel | None = None
            last: ChatResponse | None = None
            async for last in await self.astream_chat(messages, **options):
                grown = _grown(output_cls, last, grown)
                yield grown
            if last is not None:
                yield _ended(output_cls, last)

        return grow()

    def _begin(
        self,
        output_cls: type[Any],
        prompt: BasePromptTemplate,
        given: dict[str, Any] | None,
        prompt_args: dict[str, Any],
    ) -> tuple[Sequence[ChatMessage], dict[str, Any]]:
        """The conversation, and the options of the call."""
        _dispatcher.event(
            LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)
        )
        messages = prompt.format_messages(llm=self, **prompt_args)
        return messages, {"schema": output_cls, "schema_in_prompt": True, **(given or {})}


def _ended(output_cls: type[Model], response: ChatResponse) -> Model:
    answer: Model = output_cls.model_validate_json(response.message.content or "")
    _dispatcher.event(LLMStructuredPredictEndEvent(output=answer))
    return answer


def _grown(
    output_cls: type[Model], response: ChatResponse, before: Model | FlexibleModel | None
) -> Model | FlexibleModel:
    grown = process_streaming_content_incremental(response, output_cls, before)
    _dispatcher.event(LLMStructuredPredictInProgressEvent(output=grown))
    return grown
