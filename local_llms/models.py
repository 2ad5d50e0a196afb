"""The one door: load a model, and ask it.

The adapters and the command enter here; they know no engine and no backend.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from inspect import signature
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from local_llms import given
from local_llms.asking import ModelAdapter, answer_request, score_of, score_request, write
from local_llms.backends.base import LoadOptions
from local_llms.callbacks import TokenCallback
from local_llms.catalog import ModelCard, find_family, find_template
from local_llms.constraints import CONSTRAINTS, SchemaLike
from local_llms.describe import ModelInfo, describe
from local_llms.engine import Engine, EngineStats, Request, Stream, Turns
from local_llms.errors import EngineBusy, EngineClosed, OptionError, TemplateError
from local_llms.given import PromptInput, messages_of
from local_llms.hub import changes_vocabulary
from local_llms.options import CallOptions, LoadingOptions, check_names, parse_options
from local_llms.pool import SharedEngine, Weights, pool
from local_llms.prompts import MessageLike, Preview, encode, preview, text_of
from local_llms.resolve import ChosenTemplate, ModelName, adapter_path, choose_template, find_source
from local_llms.tools import CallStart, Piece, ReplyReader, TextPiece, ToolUse, format_of, read_reply, told
from local_llms.types import Completion, Score, Tool

__all__ = [
    "CallStart",
    "EngineStats",
    "LoadedModel",
    "ModelInfo",
    "Piece",
    "PromptInput",
    "ReplyReader",
    "Stream",
    "TextPiece",
    "load_model",
    "read_reply",
]

LONG_PROMPT = 20_000
"""Characters from which tokenizing could hold an event loop up, so that it goes to a thread."""

_OF_A_SCORE = ("adapter", "adapter_scale", "timeout")

_turns = Turns()


def load_model(model: ModelName | None = None, *, family: str | None = None, **loading: Any) -> LoadedModel:
    """Load a model, or share it with whoever has loaded it with equal options.

    ``model``: a name of the catalog (fetched at the first use), a place on the Hugging Face hub (``"hf:org/repo"``,
    ``"hf:org/repo:file"``), a file or folder, or None for the small default model. An adapter's name loads its base
    with it.
    ``family``: the family whose prompt format to use. ``loading``: the fields of ``LoadingOptions``.

    Raises ModelNotFound, ModelFileError, MissingDependency, DownloadError, OptionError or UnknownOption.
    """
    options = parse_options(LoadingOptions, "load_model()", loading)
    return LoadedModel(model, family, options)


class LoadedModel:
    """A counted handle on a loaded model. The weights are freed when the last handle is closed or dropped.

    All methods may be called from any thread. A copied or pickled handle carries the specification and loads again.
    """

    def __init__(self, model: ModelName | None, family: str | None, options: LoadingOptions) -> None:
        """Use ``load_model``."""
        self._family = family
        model = given.checked_name("load_model()", model)
        self._specification = (model, family, options.model_dump(exclude_unset=True))
        if options.template is not None:
            find_template(options.template)
        source = find_source(model, family)
        if source.adapter is not None and options.adapter is not None:
            raise OptionError(f"{source.name} is an adapter itself: use others over its base, {source.adapter.base}.")
        self._card: ModelCard | None = source.card
        path = source.path()
        adapter = source.adapter_path() if options.adapter is None else adapter_path(options.adapter)
        self._adapter = ModelAdapter(adapter, built_in=adapter is not None and changes_vocabulary(adapter))
        fields = {name: getattr(options, name) for name in LoadOptions.__dataclass_fields__}
        # Any other adapter is opened beside the weights, which are shared with whoever has none.
        load = LoadOptions(**{**fields, "adapter": adapter if self._adapter.built_in else None})
        weights = Weights.of(path, options.backend, load, options.max_queue, options.idle_unload)
        self._shared: SharedEngine = pool.acquire(weights)
        self._hold = weakref.finalize(self, pool.drop, self._shared)
        self._hold.atexit = False  # the pool closes everything itself
        with self._shared.use() as engine:
            if adapter is not None and not self._adapter.built_in:
                engine.prepare_adapter(adapter)
                engine.open_adapter(adapter).result()
            self._chosen = choose_template(options.template, family, source.card, engine.info)
            self._info = describe(
                source.name, path, engine.info, self._chosen, source.card, self._shared.backend_reason, adapter
            )

    @property
    def info(self) -> ModelInfo:
        """What was loaded, and why so."""
        return self._info

    def submit(
        self,
        prompt: PromptInput,
        *,
        input: str | None = None,
        schema: SchemaLike | None = None,
        regex: str | None = None,
        choices: Sequence[str] | None = None,
        grammar: str | None = None,
        schema_in_prompt: bool = False,
        tools: Sequence[Tool] = (),
        tool_choice: str | None = None,
        parallel_tool_calls: bool | None = None,
        logprobs: bool = False,
        top_logprobs: int = 0,
        token_callbacks: Sequence[TokenCallback] = (),
        **options: Any,
    ) -> Stream:
        """Queue a request and return its stream at once, without waiting for the model.

        ``input``: a text that the instruction is about, for templates that know one. ``logprobs``: whether each token's
        log-probability is wanted; ``top_logprobs``: for how many of the most probable tokens at each place as well, at
        most 20. ``options``: the fields of ``CallOptions``.

        One of these four says what the answer must look like; a mask on the logits sees to it, and the answer ends
        where it is complete. One that is cut before, by ``max_tokens`` or the context, raises AnswerCut.

        - ``schema``: the answer is a JSON document of this schema: a pydantic model, a TypedDict, a dataclass, or a
          JSON Schema as a dictionary or text. ``schema_in_prompt``: the last question gets a line that shows it, from
          which a small model knows what belongs into each field.
        - ``regex``: all of the answer matches this regular expression (Rust's syntax).
        - ``choices``: the answer is one of these texts.
        - ``grammar``: the answer is of this context-free grammar, in llguidance's dialect of Lark.

        ``tools``: functions that the answer may call, told to the model in its family's own way; ``reader`` reads the
        calls. ``tool_choice``: "auto" (the default), "required", "none", or a tool's name. ``parallel_tool_calls``:
        True allows several, where the family's format has a way to write them. With tools, a ``schema`` is for the
        answer that calls none.

        Raises EmptyPrompt, ContextOverflow, TemplateError, ConstraintError, UnsupportedFeature, OptionError,
        UnknownOption, MissingDependency, EngineBusy or EngineClosed.
        """
        check_names("generate()", options, dict.fromkeys((*CallOptions.model_fields, *_OWN_NAMES)))
        call = CallOptions.parse("generate()", options)
        use = ToolUse.of(tools, tool_choice, parallel_tool_calls)
        with self._use() as engine:
            # First, since a model that only makes embeddings has no template either.
            engine.check_generates()
            request = answer_request(
                engine,
                self._template(call.template).template,
                prompt,
                call,
                input=input,
                defaults=self._sampling_defaults(),
                adapter=self._adapter,
                held_to={"schema": schema, "regex": regex, "choices": choices, "grammar": grammar},
                schema_in_prompt=schema_in_prompt,
                tools=use,
                logprobs=logprobs or bool(token_callbacks),
                top_logprobs=top_logprobs,
            )
            engine.prepare(request)
            return engine.submit(request, observers=given.checked_callbacks(token_callbacks))

    async def asubmit(self, prompt: PromptInput, **options: Any) -> Stream:
        """Like ``submit``, without holding the event loop up by a long text, a reload, or many requests at once."""
        size = sum(len(message.content) for message in messages_of(prompt))
        # What is compiled or fetched may be here already, but only a thread can find that out without waiting.
        slow = {*CONSTRAINTS, "adapter", "tools"}
        if self._shared.loaded and size < LONG_PROMPT and slow.isdisjoint(options):
            with self._use() as engine:
                if self._adapter.is_open(engine):
                    await _turns.next()
                    return self.submit(prompt, **options)
        return await asyncio.to_thread(self.submit, prompt, **options)

    def generate(self, prompt: PromptInput, **options: Any) -> Completion:
        """The whole answer. Errors: those of ``submit``, DeadlineExceeded, AnswerCut, DecodeError, CallbackError."""
        return self.submit(prompt, **options).result()

    async def agenerate(self, prompt: PromptInput, **options: Any) -> Completion:
        """Like ``generate``; cancelling the task stops the computing."""
        return await (await self.asubmit(prompt, **options)).aresult()

    def stream(self, prompt: PromptInput, **options: Any) -> Stream:
        """The answer as it comes: ``for event in model.stream(…)``, or ``async for`` after ``asubmit``."""
        return self.submit(prompt, **options)

    def generate_many(self, prompts: Iterable[PromptInput], **options: Any) -> list[Completion]:
        """The answers to many prompts, decoded together, in the order of the prompts; as many as you like.

        The first error is raised, and what is under way is cancelled.
        """
        pending: deque[Stream] = deque()
        answers: list[Completion] = []
        try:
            for prompt in given.checked_list("generate_many()", prompts):
                while (stream := self._try_submit(prompt, bool(pending), options)) is None:
                    answers.append(pending.popleft().result())
                pending.append(stream)
            while pending:
                answers.append(pending.popleft().result())
        finally:
            for stream in pending:
                stream.cancel()
        return answers

    async def agenerate_many(self, prompts: Iterable[PromptInput], **options: Any) -> list[Completion]:
        """Like ``generate_many``, without blocking the event loop."""
        pending: deque[Stream] = deque()
        answers: list[Completion] = []
        try:
            for prompt in given.checked_list("generate_many()", prompts):
                while (stream := self._try_submit(prompt, bool(pending), options)) is None:
                    answers.append(await pending.popleft().aresult())
                pending.append(stream)
            while pending:
                answers.append(await pending.popleft().aresult())
        finally:
            for stream in pending:
                stream.cancel()
        return answers

    def score(self, text: str, **options: Any) -> Score:
        """How probable the model finds a text as it is: no template, and its BOS token in front where it has one.

        ``options``: ``adapter``, ``adapter_scale`` and ``timeout``. It is computed part by part among other requests.

        Raises EmptyPrompt, ContextOverflow (score a longer text in parts), DeadlineExceeded, and otherwise what
        ``submit`` raises.
        """
        stream, request, front = self._submit_score(text, options)
        return score_of(stream.result(), request, front)

    async def ascore(self, text: str, **options: Any) -> Score:
        """Like ``score``, without blocking the event loop; cancelling the task stops the computing."""
        stream, request, front = await asyncio.to_thread(self._submit_score, text, options)
        return score_of(await stream.aresult(), request, front)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector of length 1 per text, each ``info.embedding_size`` numbers. A text too long is cut to the context.

        Raises UnsupportedFeature where the model makes no embeddings.
        """
        if not (texts := given.checked_texts("embed()", texts)):
            return []
        with self._use() as engine:
            future = engine.embed([engine.backend.encode_for_embedding(text) for text in texts])
        vectors: list[list[float]] = future.result().tolist()
        return vectors

    async def aembed(self, texts: Sequence[str]) -> list[list[float]]:
        """Like ``embed``, without holding the event loop up by long texts or a reload."""
        if not (texts := given.checked_texts("embed()", texts)):
            return []

        def submit() -> Future[NDArray[np.float32]]:
            with self._use() as engine:
                return engine.embed([engine.backend.encode_for_embedding(text) for text in texts])

        at_once = self._shared.loaded and sum(map(len, texts)) < LONG_PROMPT
        future = submit() if at_once else await asyncio.to_thread(submit)
        vectors: list[list[float]] = (await asyncio.wrap_future(future)).tolist()
        return vectors

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text: no BOS, no template, and no special token whatever the text contains."""
        with self._use() as engine:
            return engine.backend.tokenize(given.checked_text("tokenize()", text))

    def reader(self, tools: Sequence[Tool], tool_choice: str | None = None, template: str | None = None) -> ReplyReader:
        """Tells what an answer says and what it calls; the arguments are those that ``submit`` was given."""
        use = ToolUse.of(tools, tool_choice, None)
        names = [] if use is None else [tool.name for tool in use.callable]
        return ReplyReader(format_of(self._template(template).template), names)

    def count_tokens(
        self,
        prompt: PromptInput,
        *,
        input: str | None = None,
        tools: Sequence[Tool] = (),
        thinking: bool | None = None,
    ) -> int:
        """Tokens that ``generate`` would send for this prompt, template, tools and BOS included."""
        use = ToolUse.of(tools, None, None)
        with self._use() as engine:
            written = write(self._template(None).template, messages_of(prompt), input, use, thinking)
            return len(encode(written, engine.backend))

    def render(self, prompt: PromptInput, *, input: str | None = None, thinking: bool | None = None) -> str:
        """The text that ``generate`` would send."""
        return text_of(write(self._template(None).template, messages_of(prompt), input, None, thinking))

    def preview(
        self, messages: Sequence[MessageLike], *, tools: Sequence[Mapping[str, Any]] = (), **options: Any
    ) -> Preview:
        """What a conversation becomes: structure and content apart, and the tokens.

        ``tools``: as JSON describes them. The other options are those of ``render_prompt``.
        """
        template = self._template(None).template
        turns, known = told(template, messages, tools)
        with self._use() as engine:
            return preview(template, turns, engine.backend, tools=known, **options)

    def stats(self) -> EngineStats:
        """What the engine has done and is doing; it is shared by all handles on these weights."""
        with self._use() as engine:
            return engine.stats()

    def close(self) -> None:
        """Give this handle up. Closing twice does nothing; using it afterwards raises EngineClosed."""
        if self._hold.detach() is not None:
            pool.release(self._shared)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_again, self._specification

    def __repr__(self) -> str:
        state = "" if self._hold.alive else ", closed"
        return f"<LoadedModel {self._info.name} on {self._info.backend}{state}>"

    def _use(self) -> AbstractContextManager[Engine]:
        if not self._hold.alive:
            raise EngineClosed(f"The model {self._info.name} was closed. Load it again with load_model().")
        return self._shared.use()

    def _try_submit(self, prompt: PromptInput, may_wait: bool, options: dict[str, Any]) -> Stream | None:
        """A stream, or None where the queue is full and there is an answer to wait for."""
        try:
            return self.submit(prompt, **options)
        except EngineBusy:
            if not may_wait:
                raise
            return None

    def _submit_score(self, text: str, options: dict[str, Any]) -> tuple[Stream, Request, int]:
        check_names("score()", options, dict.fromkeys(_OF_A_SCORE))
        call = CallOptions.parse("score()", options)
        with self._use() as engine:
            engine.check_generates()
            request, front = score_request(engine, given.checked_text("score()", text), call, self._adapter)
            engine.prepare(request)
            return engine.submit(request), request, front

    def _template(self, name: str | None) -> ChosenTemplate:
        if name is not None:
            return ChosenTemplate(find_template(name)[1], f"template={name!r} was given")
        if self._chosen is None:
            raise TemplateError(
                f"Nothing tells which prompt template {self._info.name} was trained with: its file carries none. "
                'Name one with template=, or use template="plain" to send prompts as they are.'
            )
        return self._chosen

    def _sampling_defaults(self) -> dict[str, Any]:
        if self._card is not None:
            return dict(self._card.sampling)
        return dict(find_family(self._family).sampling) if self._family is not None else {}


_OWN_NAMES = tuple(signature(LoadedModel.submit).parameters)[2:-1]
"""What ``submit`` takes beside the fields of ``CallOptions``, so that a misspelt one finds it."""


def _load_again(model: ModelName | None, family: str | None, loading: dict[str, Any]) -> LoadedModel:
    return load_model(model, family=family, **loading)
