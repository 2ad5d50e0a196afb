"""A local model as a LangChain chat model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Self
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun, Callbacks
from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.load.serializable import SerializedConstructor
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable
from langchain_core.runnables.config import ContextThreadPoolExecutor
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, Field, PrivateAttr, model_validator

from local_llms.catalog import ModelCard, default_model, find_family, find_model, find_template
from local_llms.errors import AnswerCut, ModelNotFound, TemplateError
from local_llms.langchain import replies
from local_llms.langchain.fields import TextFields, package_version, specification
from local_llms.langchain.messages import to_messages
from local_llms.langchain.structured import Method, structured
from local_llms.langchain.together import Together
from local_llms.langchain.tools import to_choice, to_tools
from local_llms.models import LoadedModel, ReplyReader
from local_llms.options import DEFAULT_CONTEXT
from local_llms.types import Completion


class ChatLocal(TextFields, Together[AIMessage], BaseChatModel):
    """A model on this machine; equal models and loading options share one set of weights and decode together.

    ``ChatLocal()`` takes the small default model. The fields are those of ``LoadingOptions`` (how to load),
    ``SamplingOptions`` (how to sample), and LangChain's own; a call may set sampling options, ``template``,
    ``timeout``, ``model`` (another model for this call), ``input_text``, ``logprobs`` and ``token_callbacks``, as
    ``invoke`` and ``bind`` pass them.

    - ``invoke``, ``stream``, ``batch`` and their async forms; what is asked at the same time is decoded in one batch.
      Leaving a stream, cancelling a task and ``timeout`` stop the computing.
    - What a model thinks before it answers is a reasoning block of ``content_blocks``, no part of the text;
      ``thinking`` and ``max_thinking_tokens`` switch it and bound it.
    - An answer has ``usage_metadata`` (``input_token_details["cache_read"]``: prompt tokens not computed again) and
      ``response_metadata`` with "model_name", "finish_reason", "stop_match", "timings" and, where ``logprobs`` is set,
      "logprobs" as OpenAI writes them. Of a stream, the last chunk has them.
    - ``bind_tools`` and ``with_structured_output`` hold answers to a grammar; a call may also set ``schema``,
      ``regex``, ``choices`` or ``grammar`` as ``LoadedModel.submit`` takes them, and OpenAI's ``response_format``.
    - ``profile`` tells what the model can do; ``max_input_tokens`` is exact once the model is loaded.

    Wrong options raise OptionError or UnknownOption. A call raises EmptyPrompt, ContextOverflow, TemplateError,
    ConstraintError, UnsupportedFeature, EngineBusy, EngineClosed, DeadlineExceeded, AnswerCut, DecodeError or
    CallbackError, and at the first use what loading raises: ModelNotFound, ModelFileError, MissingDependency or
    DownloadError.
    """

    stream_usage: bool = Field(default=True, description="Whether the last chunk of a stream tells the usage.")
    streaming: bool = Field(default=False, description="Whether ``invoke`` sends each token to LangChain's callbacks.")
    _profile_is_ours: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _set_local_llms_version(self) -> Self:
        self._add_version("local-llms", package_version())
        return self

    @property
    def _llm_type(self) -> str:
        return "local-llms-chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return self._parameters()

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._tracing("chat", stop, kwargs)

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        return super()._get_invocation_params(stop=self.stop if stop is None else stop, **kwargs)

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        # Who listens changes no answer, so the cache need not know.
        kwargs.pop("token_callbacks", None)
        return super()._get_llm_string(stop=stop, **kwargs)

    def _resolve_model_profile(self) -> ModelProfile:
        self._profile_is_ours = True
        card: ModelCard | None = None
        with suppress(ModelNotFound):
            card = find_model(self.model or default_model())
        profile = ModelProfile(
            open_weights=True,
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            audio_inputs=False,
            video_inputs=False,
            pdf_inputs=False,
            image_outputs=False,
            audio_outputs=False,
            video_outputs=False,
            attachment=False,
            reasoning_output=self.thinking is not False and self._usually_thinks(card),
            tool_calling=True,
            tool_choice=True,
            tool_call_streaming=True,
            structured_output=True,
            temperature=True,
        )
        length = self.context_length or (0 if card is None else self._usual_context_length(card))
        if length:
            profile["max_input_tokens"] = length
        return profile

    def _usual_context_length(self, card: ModelCard) -> int:
        return min(card.context_length, DEFAULT_CONTEXT, self.cache_tokens or DEFAULT_CONTEXT)

    def _usually_thinks(self, card: ModelCard | None) -> bool:
        """Whether the model's template is of models that think, as far as that is known without its file."""
        name = self.template
        if name is None:
            if card is not None and self.family in (None, card.family):
                name = card.template
            elif self.family is not None:
                name = find_family(self.family).default_template
        try:
            return name is not None and find_template(name)[1].thinking is not None
        except ModelNotFound:
            return False

    def loaded(self, model: str | None = None) -> LoadedModel:
        """The object's model, or the one named for a single call. Loads it at the first use, which may take seconds.

        Raises ModelNotFound, ModelFileError, MissingDependency, DownloadError, or EngineClosed after ``close``.
        """
        return self._profiled(model, super().loaded(model))

    async def aloaded(self, model: str | None = None) -> LoadedModel:
        """Like ``loaded``, without holding the event loop up."""
        return self._profiled(model, await super().aloaded(model))

    def _profiled(self, model: str | None, handle: LoadedModel) -> LoadedModel:
        if model is None and self._profile_is_ours and self.profile is not None:
            self.profile["name"] = handle.info.name
            self.profile["max_input_tokens"] = handle.info.context_length
            self.profile["reasoning_output"] = self.thinking is not False and handle.info.thinks
        return handle

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        model, options = self._call(stop, kwargs)
        listener = _listen(options)
        handle = self.loaded(model)
        reader = _reader(handle, options)
        with self._patiently(handle.submit, to_messages(messages), options) as stream:
            cut = False
            try:
                completion = stream.result()
            except AnswerCut as error:
                completion, cut = _kept(error, kwargs), True
        return ChatResult(generations=[replies.message(completion, handle.info.name, listener, reader, cut=cut)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        model, options = self._call(stop, kwargs)
        listener = _listen(options)
        handle = await self.aloaded(model)
        reader = _reader(handle, options)
        async with await self._apatiently(handle.asubmit, to_messages(messages), options) as stream:
            cut = False
            try:
                completion = await stream.aresult()
            except AnswerCut as error:
                completion, cut = _kept(error, kwargs), True
        return ChatResult(generations=[replies.message(completion, handle.info.name, listener, reader, cut=cut)])

    # LangChain sends each chunk to its callbacks itself; doing so here as well would count every token twice.

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        model, options = self._call(stop, kwargs)
        logprobs = bool(options["logprobs"])
        handle = self.loaded(model)
        reader = _reader(handle, options)
        with self._patiently(handle.submit, to_messages(messages), options) as stream:
            cut = False
            try:
                for event in stream:
                    chunk = replies.message_chunk(event, logprobs=logprobs, reader=reader)
                    if chunk is not None:
                        yield chunk
                completion = stream.result()
            except AnswerCut as error:
                completion, cut = _kept(error, kwargs), True
            usage = kwargs.get("stream_usage", self.stream_usage)
            yield replies.last_message_chunk(completion, handle.info.name, usage=usage, reader=reader, cut=cut)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        model, options = self._call(stop, kwargs)
        logprobs = bool(options["logprobs"])
        handle = await self.aloaded(model)
        reader = _reader(handle, options)
        async with await self._apatiently(handle.asubmit, to_messages(messages), options) as stream:
            cut = False
            try:
                async for event in stream:
                    chunk = replies.message_chunk(event, logprobs=logprobs, reader=reader)
                    if chunk is not None:
                        yield chunk
                completion = stream.result()
            except AnswerCut as error:
                completion, cut = _kept(error, kwargs), True
            usage = kwargs.get("stream_usage", self.stream_usage)
            yield replies.last_message_chunk(completion, handle.info.name, usage=usage, reader=reader, cut=cut)

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        run_id: UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer several conversations, decoded together; ``run_id`` names the run of the first."""

        def answer(conversation: list[BaseMessage], run: UUID | None) -> LLMResult:
            return BaseChatModel.generate(self, [conversation], stop, callbacks, run_id=run, **kwargs)

        if len(messages) < 2:
            return super().generate(messages, stop, callbacks, run_id=run_id, **kwargs)
        runs = [run_id, *[None] * (len(messages) - 1)]
        with ContextThreadPoolExecutor(min(len(messages), self._at_once())) as executor:
            return self._together(list(executor.map(answer, messages, runs)))

    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        run_id: UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Like ``generate``, without blocking the event loop."""
        room = asyncio.Semaphore(self._at_once())

        async def answer(conversation: list[BaseMessage], run: UUID | None) -> LLMResult:
            async with room:
                return await BaseChatModel.agenerate(self, [conversation], stop, callbacks, run_id=run, **kwargs)

        if len(messages) < 2:
            return await super().agenerate(messages, stop, callbacks, run_id=run_id, **kwargs)
        runs = [run_id, *[None] * (len(messages) - 1)]
        tasks = [answer(conversation, run) for conversation, run in zip(messages, runs, strict=True)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return self._together([result for result in results if isinstance(result, LLMResult)])

    def _together(self, results: list[LLMResult]) -> LLMResult:
        return LLMResult(
            generations=[generation for result in results for generation in result.generations],
            llm_output=self._combine_llm_outputs([result.llm_output for result in results]),
            run=[run for result in results for run in result.run or ()] or None,
        )

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The same model with functions that its answers may call.

        ``tools``: LangChain's tools, functions, pydantic models, TypedDicts, or dictionaries as OpenAI has them.
        ``tool_choice``: "auto" (the default: text or calls, as the model likes), "any" (calls only), "none", or a
        tool's name. ``parallel_tool_calls``: True lets one answer call several, up to eight; else it is one. Whatever
        is called exists, and the arguments are valid under its schema.
        """
        told = [convert_to_openai_tool(tool) for tool in tools]
        choice = to_choice(tool_choice, [tool["function"]["name"] for tool in told])
        given = {"tool_choice": choice, "parallel_tool_calls": parallel_tool_calls}
        return self.bind(tools=told, **{name: value for name, value in given.items() if value is not None}, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """The same model with answers that are objects of a schema.

        ``schema``: a pydantic model, whose instances come back, or a TypedDict or JSON Schema, for dictionaries.

        ``method``: "json_schema" shows the model the schema and holds the answer to it; "function_calling" has the
        model call a tool of that schema; "json_mode" holds it to the schema without showing it, so that the prompt
        must say what is wanted; without a schema it holds it to any JSON object.
        ``strict`` changes nothing: the answer is valid in any case. It raises AnswerCut where ``max_tokens`` or the
        context cut it.

        ``include_raw``: a dictionary comes back, with "raw" (the message), "parsed" and "parsing_error"; an answer that
        was cut is such an error then. A stream gives objects that grow. Raises OptionError or ConstraintError.
        """
        return structured(self, schema, method=method, include_raw=include_raw, options=kwargs)

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text by the model's own tokenizer, without template and special tokens."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return self.loaded().tokenize(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Tokens that ``invoke`` would send for these messages, template and special tokens included.

        ``tools``: those that the model is told of. Messages that the template refuses, such as a part of a
        conversation, count as their texts alone.
        """
        if not messages:
            return 0
        converted = to_messages(messages)
        handle = self.loaded()
        try:
            return handle.count_tokens(
                converted, input=self.input_text, tools=to_tools(tools or ()), thinking=self.thinking
            )
        except TemplateError:
            return sum(len(handle.tokenize(message.content)) for message in converted)

    def to_json(self) -> SerializedConstructor:
        """The class and the fields that were given; no weights, no secret."""
        return specification(self)


def _reader(handle: LoadedModel, options: dict[str, Any]) -> ReplyReader | None:
    """What tells calls from text, where the answer may call tools."""
    tools = options.get("tools")
    return handle.reader(tools, options.get("tool_choice"), options.get("template")) if tools else None


def _kept(error: AnswerCut, given: dict[str, Any]) -> Completion:
    """What there is of an answer that was cut, for who asked for it even so; else the error."""
    if not given.get("keep_cut"):
        raise error
    completion: Completion = error.completion
    return completion


def _listen(options: dict[str, Any]) -> replies.Listener | None:
    if not options["logprobs"]:
        return None
    listener = replies.Listener()
    options["token_callbacks"] = [*options["token_callbacks"], listener]
    return listener
