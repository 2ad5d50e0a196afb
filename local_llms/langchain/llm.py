"""A local model as a LangChain LLM: a string in, a string out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.load.serializable import SerializedConstructor
from langchain_core.messages import HumanMessage
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.prompt_values import ChatPromptValue, PromptValue, StringPromptValue
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from pydantic import model_validator

from local_llms.errors import UnsupportedFeature
from local_llms.langchain import replies
from local_llms.langchain.fields import TextFields, package_version, specification
from local_llms.langchain.together import Together
from local_llms.types import Completion

_HELD_TO = ("schema", "schema_in_prompt", "regex", "choices", "grammar")
_OF_A_RUN = frozenset({"tags", "metadata", "run_name", "run_id"})


class LocalLLM(TextFields, Together[str], BaseLLM):
    """A model on this machine; equal models and loading options share one set of weights and decode together.

    The string goes to the model as one user message in its template; ``template="plain"`` sends it as it is.
    ``LocalLLM()`` takes the small default model. The fields are those of ``LoadingOptions`` (how to load),
    ``SamplingOptions`` (how to sample), and LangChain's own; a call may set sampling options, ``template``,
    ``timeout``, ``model`` (another model for this call), ``input_text``, ``logprobs`` and ``token_callbacks``, as
    ``invoke`` and ``bind`` pass them.

    - ``invoke``, ``stream``, ``batch`` and their async forms; what is asked at the same time is decoded in one batch.
      Leaving a stream, cancelling a task and ``timeout`` stop the computing.
    - ``generate`` tells in ``generation_info`` of each answer "model_name", "finish_reason", "stop_match", "usage",
      "timings", "reasoning" where the model thought before it answered and, where ``logprobs`` is set, "logprobs" with
      "token_ids" and "token_logprobs"; ``llm_output`` has the "token_usage" of all. Of a stream, the last chunk, which
      is empty, has them.
    - A call may set ``schema``, ``regex``, ``choices`` or ``grammar``, to which its answer is held.
    - Messages become one string in LangChain's way ("Human: …"); a single human message is its text. Use ``ChatLocal``
      for conversations.

    Raises what ``ChatLocal`` raises.
    """

    @model_validator(mode="after")
    def _set_local_llms_version(self) -> Self:
        self._add_version("local-llms", package_version())
        return self

    @property
    def _llm_type(self) -> str:
        return "local-llms"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return self._parameters()

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._tracing("llm", stop, kwargs)

    def _convert_input(self, model_input: LanguageModelInput) -> PromptValue:
        value = super()._convert_input(model_input)
        if isinstance(value, ChatPromptValue) and len(value.messages) == 1:
            (message,) = value.messages
            if isinstance(message, HumanMessage) and isinstance(message.content, str):
                return StringPromptValue(text=message.content)
        return value

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        model, options = self._call(stop, kwargs)
        handle = self.loaded(model)
        if len(prompts) == 1:
            with self._patiently(handle.submit, prompts[0], options) as stream:
                return _result([stream.result()], handle.info.name)
        return _result(self._patiently(handle.generate_many, prompts, options), handle.info.name)

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        model, options = self._call(stop, kwargs)
        handle = await self.aloaded(model)
        if len(prompts) == 1:
            async with await self._apatiently(handle.asubmit, prompts[0], options) as stream:
                return _result([await stream.aresult()], handle.info.name)
        return _result(await self._apatiently(handle.agenerate_many, prompts, options), handle.info.name)

    # Unlike a chat model's, the chunks of an LLM are sent to LangChain's callbacks by the model itself.

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        model, options = self._call(stop, kwargs)
        handle = self.loaded(model)
        with self._patiently(handle.submit, prompt, options) as stream:
            for event in stream:
                if event.text:
                    chunk = replies.text_chunk(event)
                    if run_manager is not None:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
            yield replies.last_text_chunk(stream.result(), handle.info.name)

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        model, options = self._call(stop, kwargs)
        handle = await self.aloaded(model)
        async with await self._apatiently(handle.asubmit, prompt, options) as stream:
            async for event in stream:
                if event.text:
                    chunk = replies.text_chunk(event)
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
            yield replies.last_text_chunk(stream.result(), handle.info.name)

    # LangChain's cache knows an LLM by its fields and the call's ``stop``, and by nothing else that a call sets. So a
    # call that sets more is made on a copy that has it as fields, and the field ``stop`` is handed over as the call's.

    def generate(
        self, prompts: list[str], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Answer several strings, decoded together."""
        run, twin = self._with(kwargs)
        return super(LocalLLM, twin).generate(prompts, self.stop if stop is None else stop, callbacks, **run)

    async def agenerate(
        self, prompts: list[str], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Like ``generate``, without blocking the event loop."""
        run, twin = self._with(kwargs)
        return await super(LocalLLM, twin).agenerate(prompts, self.stop if stop is None else stop, callbacks, **run)

    def _with(self, given: dict[str, Any]) -> tuple[dict[str, Any], Self]:
        """What LangChain wants to know of the run, and this object with the options of the call."""
        run = {name: value for name, value in given.items() if name in _OF_A_RUN}
        call = {name: value for name, value in given.items() if name not in _OF_A_RUN and value is not None}
        if not call:
            return run, self
        self._call(None, call)
        held = {name: call.pop(name) for name in _HELD_TO if name in call}
        model = self._path_as_text(call.pop("model", self.model))
        heard = [*self.token_callbacks, *call.pop("token_callbacks", ())]
        # What an answer must look like is no field, so a cache would give one that was held to something else.
        uncached = {"cache": False} if held else {}
        twin = self.model_copy(update={**call, **uncached, "model": model, "token_callbacks": heard})
        twin._handles = self._handles
        return {**run, **held}, twin

    def _call(self, stop: list[str] | None, given: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        tools = sorted({"tools", "tool_choice", "parallel_tool_calls"}.intersection(given))
        if tools:
            raise UnsupportedFeature(f"{type(self).__name__} gives texts and takes no {tools[0]}. Use ChatLocal.")
        return super()._call(stop, given)

    # Without a limit, and where one error may stand for all, LangChain hands a batch over as a whole, which is quicker.

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Answer many inputs, decoded together; ``max_concurrency`` of the config limits how many at a time."""
        if return_exceptions or _is_limited(config, len(inputs)):
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        return BaseLLM.batch(self, inputs, config, **kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Like ``batch``, without blocking the event loop."""
        if return_exceptions or _is_limited(config, len(inputs)):
            return await super().abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        return await BaseLLM.abatch(self, inputs, config, **kwargs)

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text by the model's own tokenizer, without template and special tokens."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return self.loaded().tokenize(text)

    def to_json(self) -> SerializedConstructor:
        """The class and the fields that were given; no weights, no secret."""
        return specification(self)


def _is_limited(config: RunnableConfig | list[RunnableConfig] | None, length: int) -> bool:
    """Whether the caller, or a chain around, says ``max_concurrency``."""
    return any(one.get("max_concurrency") for one in get_config_list(config, length))


def _result(completions: list[Completion], model: str) -> LLMResult:
    return LLMResult(
        generations=[[replies.generation(completion, model)] for completion in completions],
        llm_output={"token_usage": replies.token_usage(completions), "model_name": model},
    )
