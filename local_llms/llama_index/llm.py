"""A local model as a llama-index LLM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from llama_index.core.base.llms.generic_utils import messages_to_prompt as generic_messages_to_prompt
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import default_completion_to_prompt
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import TokenAsyncGen
from llama_index_instrumentation.dispatcher import DISPATCHER_SPAN_DECORATED_ATTR

from local_llms.catalog import default_model
from local_llms.errors import OptionError
from local_llms.llama_index.calling import Calling, to_choice, to_tools
from local_llms.llama_index.convert import to_messages
from local_llms.llama_index.reply import Listener, Reply, ResponseT, as_chat, as_completion
from local_llms.llama_index.structured import Structured
from local_llms.models import LoadedModel, PromptInput, ReplyReader
from local_llms.options import SamplingOptions
from local_llms.types import Message, SamplingParams

MethodT = TypeVar("MethodT", bound=Callable[..., Any])


def _spanned_by_the_base(method: MethodT) -> MethodT:
    """Keep llama-index from putting a span of its own around a method that calls the spanned one it overrides."""
    setattr(method, DISPATCHER_SPAN_DECORATED_ATTR, True)
    return method


class LocalLLM(Structured, Calling):
    """A model on this machine; equal models and loading options share one set of weights and decode together.

    ``LocalLLM()`` takes the small default model. The fields are those of ``LoadingOptions`` (how to load),
    ``SamplingOptions`` (how to sample), ``timeout``, ``input_text``, ``logprobs`` and ``token_callbacks``. A call may
    set sampling options, ``template``, ``timeout``, ``model`` (another model for this call), ``input_text``,
    ``logprobs`` and ``token_callbacks``.

    - ``complete`` sends its text as one user message in the model's template, ``chat`` a conversation. ``template=
      "plain"`` sends the text as it is, and so does ``formatted=True``.
    - ``system_prompt`` goes in front of a ``complete`` and of a conversation that has no system message.
      ``query_wrapper_prompt`` is put around the text of a ``complete``.
    - ``messages_to_prompt`` and ``completion_to_prompt`` take the place of the model's template when they are given:
      what they return is sent as it is. Markers in it, such as ``<|im_end|>``, stay plain text, since they might be
      the user's; a format of your own with special tokens is a template in a family file.
    - A call may be held to a ``schema``, ``regex``, ``choices`` or ``grammar``, and may be given ``tools`` with
      ``tool_choice`` and ``parallel_tool_calls``; calls of an answer are ToolCallBlocks. The structured predictions and
      the methods with tools of llama-index stand on these.
    - What a model thinks before it answers is a ThinkingBlock in front of the text of a ``chat``; ``thinking`` and
      ``max_thinking_tokens`` switch it and bound it.
    - ``raw`` of an answer is a dictionary with "model", "usage", "finish_reason", "stop_match" and "timings"; of a
      stream, the last piece has it.

    Wrong options raise OptionError or UnknownOption. A call raises EmptyPrompt, ContextOverflow, TemplateError,
    ConstraintError, UnsupportedFeature, EngineBusy, EngineClosed, DeadlineExceeded, AnswerCut, DecodeError or
    CallbackError, and at the first use what loading raises: ModelNotFound, ModelFileError, MissingDependency or
    DownloadError.
    """

    ignored_names: ClassVar[frozenset[str]] = frozenset({"class_name"})

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in a serialized form."""
        return cls.__name__

    @property
    def metadata(self) -> LLMMetadata:
        """Facts about the model, which is loaded for them.

        ``num_output``, the tokens that llama-index keeps free for an answer, is ``max_tokens``; where that is not
        given, what answers have by default, but at most a quarter of the context.
        """
        info = self.loaded().info
        default = SamplingParams().max_tokens or info.context_length
        return LLMMetadata(
            context_window=info.context_length,
            num_output=self.max_tokens or min(default, info.context_length // 4),
            is_chat_model=True,
            is_function_calling_model=True,
            model_name=info.name,
        )

    def to_payload(self) -> dict[str, Any]:
        """What events tell about this object. Loads nothing, since events are also sent from an event loop."""
        given = {name: getattr(self, name) for name in SamplingOptions.model_fields}
        return {
            "class_name": self.class_name(),
            "model_name": self.model or default_model(),
            "is_chat_model": True,
            "is_function_calling_model": True,
            **{name: value for name, value in given.items() if value is not None},
        }

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, without template and special tokens: for ``Settings.tokenizer`` and text splitters."""
        return self.loaded().tokenize(text)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a text. ``formatted``: it is in the model's format already."""
        return self._ask("complete", as_completion, *self._from_text(prompt, formatted, kwargs)).whole()

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Like ``complete``, without blocking the event loop; cancelling the task stops the computing."""
        reply = await self._aask("acomplete", as_completion, *self._from_text(prompt, formatted, kwargs))
        return await reply.awhole()

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer a text, piece by piece; closing or dropping the generator stops the computing."""
        return self._ask("stream_complete", as_completion, *self._from_text(prompt, formatted, kwargs)).pieces()

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Like ``stream_complete``, without blocking the event loop."""
        reply = await self._aask("astream_complete", as_completion, *self._from_text(prompt, formatted, kwargs))
        return reply.apieces()

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        return self._ask("chat", as_chat, *self._from_messages(messages, kwargs)).whole()

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Like ``chat``, without blocking the event loop; cancelling the task stops the computing."""
        return await (await self._aask("achat", as_chat, *self._from_messages(messages, kwargs))).awhole()

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation, piece by piece; closing or dropping the generator stops the computing."""
        return self._ask("stream_chat", as_chat, *self._from_messages(messages, kwargs)).pieces()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Like ``stream_chat``, without blocking the event loop."""
        return (await self._aask("astream_chat", as_chat, *self._from_messages(messages, kwargs))).apieces()

    # The base's methods below ask for ``metadata`` first, which would load the model on the event loop.

    @_spanned_by_the_base
    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Answer a filled-in prompt template."""
        await self.aloaded()
        return await super().apredict(prompt, **prompt_args)

    @_spanned_by_the_base
    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        """Answer a filled-in prompt template, piece by piece."""
        await self.aloaded()
        return await super().astream(prompt, **prompt_args)

    def _from_text(self, text: str, formatted: bool, given: dict[str, Any]) -> tuple[PromptInput, dict[str, Any]]:
        if formatted:
            return text, self._as_it_is(given, "formatted=True")
        if self.query_wrapper_prompt is not None:
            text = self.query_wrapper_prompt.format(query_str=text)
        if self.completion_to_prompt not in (None, default_completion_to_prompt):
            return self.completion_to_prompt(text), self._as_it_is(given, "completion_to_prompt=")
        return self._with_system_prompt([Message("user", text)]), given

    def _from_messages(
        self, messages: Sequence[ChatMessage], given: dict[str, Any]
    ) -> tuple[PromptInput, dict[str, Any]]:
        if self.messages_to_prompt not in (None, generic_messages_to_prompt):
            return self.messages_to_prompt(messages), self._as_it_is(given, "messages_to_prompt=")
        return self._with_system_prompt(to_messages(messages)), given

    def _with_system_prompt(self, messages: list[Message]) -> list[Message]:
        # ``predict`` has put it there already.
        if not self.system_prompt or any(message.role == "system" for message in messages):
            return messages
        return [Message("system", self.system_prompt), *messages]

    def _as_it_is(self, given: dict[str, Any], why: str) -> dict[str, Any]:
        if given.get("template") not in (None, "plain"):
            raise OptionError(
                f"{why} sends a prompt as it is and template={given['template']!r} puts it into a format. Keep one."
            )
        return {**given, "template": "plain"}

    def _ask(
        self, method: str, build: Callable[..., ResponseT], prompt: PromptInput, given: dict[str, Any]
    ) -> Reply[ResponseT]:
        listener, model, options = self._read(method, given)
        handle = self.loaded(model)
        reader = _reader(handle, options)
        return Reply(handle.submit(prompt, **options), handle.info.name, build, listener, reader)

    async def _aask(
        self, method: str, build: Callable[..., ResponseT], prompt: PromptInput, given: dict[str, Any]
    ) -> Reply[ResponseT]:
        listener, model, options = self._read(method, given)
        handle = await self.aloaded(model)
        reader = _reader(handle, options)
        return Reply(await handle.asubmit(prompt, **options), handle.info.name, build, listener, reader)

    def _read(self, method: str, given: dict[str, Any]) -> tuple[Listener | None, str | None, dict[str, Any]]:
        if "tools" in given:
            given = {**given, "tools": to_tools(given["tools"]), "tool_choice": to_choice(given.get("tool_choice"))}
        model, options = self.call_options(f"{type(self).__name__}.{method}()", given)
        if not options.get("logprobs"):
            return None, model, options
        listener = Listener()
        options["token_callbacks"] = [*options["token_callbacks"], listener]
        return listener, model, options


def _reader(handle: LoadedModel, options: dict[str, Any]) -> ReplyReader | None:
    """What tells calls from text, where the answer may call tools."""
    tools = options.get("tools")
    return handle.reader(tools, options.get("tool_choice"), options.get("template")) if tools else None
