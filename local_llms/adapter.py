"""What the adapters have in common: options as fields, a model that is loaded at its first use, errors of our own.

The classes of both frameworks are pydantic models, and so are these mixins for them; they know neither framework.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from local_llms.callbacks import TokenCallback
from local_llms.catalog import default_model
from local_llms.errors import EngineClosed
from local_llms.given import checked_callbacks
from local_llms.models import LoadedModel, load_model
from local_llms.options import (
    CallOptions,
    LoadingOptions,
    SamplingOptions,
    check_names,
    option_error,
    path_as_text,
)

HELD_TO = ("schema", "schema_in_prompt", "regex", "choices", "grammar", "tools", "tool_choice", "parallel_tool_calls")
"""What one call may set of what its answer must look like."""

CALL_NAMES = (*CallOptions.model_fields, *HELD_TO, "model", "input_text", "logprobs", "top_logprobs", "token_callbacks")
"""What one call may set."""

_OF_A_CALL = ("timeout", "input_text", "adapter_scale", "thinking", "context_overflow", "logprobs", "top_logprobs")
"""Fields besides sampling that are handed over with every call."""


class Handles:
    """The models that one object has loaded, each at its first use, until ``close``.

    May be used from any thread. A copy, by ``copy`` or pickle, starts empty and loads again. A forked child loads what
    the parent had not loaded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._held: dict[Any, LoadedModel] = {}
        self._closed = False

    def get(self, model: str | None, family: str | None, loading: Mapping[str, Any]) -> LoadedModel:
        """The model, loaded if need be. Raises what ``load_model`` raises, or EngineClosed after ``close``."""
        key = (model, family, tuple(loading.items()))
        with self._alone():
            if self._closed:
                raise EngineClosed("This object was closed. Make a new one, or a copy of it.")
            if key not in self._held:
                self._held[key] = load_model(model, family=family, **loading)
            return self._held[key]

    async def aget(self, model: str | None, family: str | None, loading: Mapping[str, Any]) -> LoadedModel:
        """Like ``get``; loading happens in a thread, so that the event loop goes on meanwhile."""
        held = None if self._closed else self._held.get((model, family, tuple(loading.items())))
        return held if held is not None else await asyncio.to_thread(self.get, model, family, loading)

    def close(self) -> None:
        """Give all models up. Closing twice does nothing."""
        with self._alone():
            self._closed = True
            held, self._held = self._held, {}
        for model in held.values():
            model.close()

    def _alone(self) -> threading.Lock:
        if os.getpid() != self._process:
            # A thread of the parent may have held the lock while it loaded a model, and is not here to let it go.
            self._lock, self._process = threading.Lock(), os.getpid()
        return self._lock

    def __reduce__(self) -> tuple[type[Handles], tuple[()]]:
        return Handles, ()


class ModelFields(LoadingOptions):
    """An object that uses a model: which one, how it is loaded, and when. Nothing is loaded before the first use.

    A wrong name or value raises UnknownOption or OptionError. ``close()``, or leaving a ``with`` block, gives the model
    up; the weights are freed when nobody else uses them. Copies and pickles carry the options, not the weights.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    family: ClassVar[str | None] = None
    """The family whose prompt format the class stands for."""
    model_kind: ClassVar[Literal["generate", "embed"]] = "generate"
    """Which of the two default models is taken where none is named."""
    ignored_names: ClassVar[frozenset[str]] = frozenset()
    """Names that the framework passes along and that mean nothing here."""

    model: str | None = Field(
        default=None, description="A name of the catalog or the path of a file; None: the small default model."
    )
    _handles: Handles = PrivateAttr(default_factory=Handles)

    @field_validator("model", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        return path_as_text(value)

    @model_validator(mode="wrap")
    @classmethod
    def _with_our_errors(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(values, Mapping):
            aliases = {field.alias for field in cls.model_fields.values() if field.alias is not None}
            check_names(cls.__name__, values, dict.fromkeys((*cls.model_fields, *aliases, *cls.ignored_names)))
        try:
            return handler(values)
        except ValidationError as error:
            raise option_error(cls.__name__, error) from None

    def model_post_init(self, context: Any, /) -> None:
        """Go on to the framework's own; without this method, the private attributes would end the line here."""
        super().model_post_init(context)

    def loaded(self, model: str | None = None) -> LoadedModel:
        """The object's model, or the one named for a single call. Loads it at the first use, which may take seconds.

        Raises ModelNotFound, ModelFileError, MissingDependency, DownloadError, or EngineClosed after ``close``.
        """
        return self._handles.get(*self._specification(model))

    async def aloaded(self, model: str | None = None) -> LoadedModel:
        """Like ``loaded``, without holding the event loop up."""
        return await self._handles.aget(*self._specification(model))

    def close(self) -> None:
        """Give the model up. Using the object afterwards raises EngineClosed."""
        self._handles.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __copy__(self) -> Self:
        twin = super().__copy__()
        twin._handles = Handles()
        return twin

    def _specification(self, model: str | None) -> tuple[str | None, str | None, dict[str, Any]]:
        name = model or self.model
        if name is None and self.model_kind == "embed":
            name = default_model("embed")
        return name, self.family, {name: getattr(self, name) for name in LoadingOptions.model_fields}


class GenerationFields(ModelFields, SamplingOptions):
    """An object that generates text: how it samples, and who hears of each token."""

    timeout: float | None = Field(default=None, gt=0, description="Seconds after which a request is given up.")
    input_text: str | None = Field(
        default=None, description="A text that the instruction is about, for templates that have a place for one."
    )
    adapter_scale: float | None = Field(
        default=None, allow_inf_nan=False, description="How strong the adapter is: 1 as trained, 0 not at all."
    )
    thinking: bool | None = Field(
        default=None, description="Whether the model thinks before it answers; None: as its template has it."
    )
    context_overflow: Literal["error", "drop_oldest"] | None = Field(
        default=None,
        description="What happens to a conversation that is too long; None: error. drop_oldest leaves out the oldest "
        "turns, keeps system messages and the last turn, and tells what it left out.",
    )
    logprobs: bool = Field(default=False, description="Whether answers tell the log-probability of each token.")
    top_logprobs: int | None = Field(
        default=None, ge=0, le=20, description="For how many of the most probable tokens at each place as well."
    )
    token_callbacks: list[TokenCallback] = Field(
        default_factory=list, exclude=True, description="Hear of the start, each token and the end of every request."
    )

    def call_options(self, where: str, given: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """What one call asks for: the model it names, and the arguments of ``LoadedModel.submit``.

        ``given``, the call's own keyword arguments, may hold the fields of ``CallOptions``, ``model``,
        ``input_text``, ``logprobs``, ``top_logprobs``, ``token_callbacks``, and what an answer is held to
        (``HELD_TO``). They come before the object's fields; callbacks are added to its own.

        Raises UnknownOption or OptionError, naming ``where``.
        """
        check_names(where, given, dict.fromkeys(CALL_NAMES))
        names = (*SamplingOptions.model_fields, *_OF_A_CALL)
        own = {name: value for name in names if (value := getattr(self, name)) is not None}
        call = {name: value for name, value in given.items() if value is not None}
        options = {**own, **call}
        CallOptions.parse(where, {name: value for name, value in options.items() if name in CallOptions.model_fields})
        model = options.pop("model", None)
        if "input_text" in options:
            options["input"] = options.pop("input_text")
        options["logprobs"] = bool(options.get("logprobs") or options.get("top_logprobs"))
        options["token_callbacks"] = [*self.token_callbacks, *checked_callbacks(call.get("token_callbacks", ()))]
        return None if model is None else self._path_as_text(model), options
