"""What LangChain's two kinds of language model have in common: their fields, and how a call becomes a request."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import cache
from importlib import metadata
from typing import Any, Literal, Self, TypeVar

from langchain_core.language_models.base import LangSmithParams
from langchain_core.load.serializable import Serializable, SerializedConstructor
from pydantic import Field, SecretStr

from local_llms.adapter import GenerationFields
from local_llms.catalog import default_model
from local_llms.errors import EngineBusy, UnsupportedFeature
from local_llms.langchain.overflow import known_to_langchain
from local_llms.langchain.replies import PROVIDER
from local_llms.langchain.tools import to_choice, to_schema, to_tools
from local_llms.options import LoadingOptions, SamplingOptions

T = TypeVar("T")

FIRST_PAUSE = 0.25
"""Seconds before the first retry; doubled for each further one."""
LONGEST_PAUSE = 4.0

_FORMER = frozenset({"functions", "function_call"})
_NOT_ASKED = frozenset({"stream", "stream_usage", "keep_cut", "strict"})
_ASKED = (
    *SamplingOptions.model_fields,
    *("adapter_scale", "thinking", "context_overflow", "logprobs", "top_logprobs", "input_text"),
)


class TextFields(GenerationFields):
    """The fields of a LangChain model that generates text, besides those of ``adapter.GenerationFields``."""

    max_retries: int = Field(
        default=2, ge=0, description="How often a request is offered again while the queue is full (EngineBusy)."
    )
    api_key: SecretStr | None = Field(
        default=None, exclude=True, description="Taken and not used, so that a hosted model can be swapped for this."
    )

    def _call(self, stop: list[str] | None, given: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """The model that a call names, if any, and the arguments of ``LoadedModel.submit``."""
        where = type(self).__name__
        former = sorted(_FORMER.intersection(given))
        if former:
            raise UnsupportedFeature(f"{where} takes no {former[0]}; tools and tool_choice have replaced it.")
        asked = {name: value for name, value in given.items() if name not in _NOT_ASKED and value is not None}
        if stop is not None:
            asked["stop"] = stop
        if "tools" in asked:
            asked["tools"] = to_tools(asked["tools"])
        if "tool_choice" in asked:
            asked["tool_choice"] = to_choice(asked["tool_choice"], [tool.name for tool in asked.get("tools", ())])
        if "response_format" in asked:
            asked["schema"] = to_schema(asked.pop("response_format"))
            asked.setdefault("schema_in_prompt", True)
        return self.call_options(where, asked)

    def _patiently(self, ask: Callable[..., T], prompt: Any, options: dict[str, Any]) -> T:
        """Call a method of a loaded model, once more where the queue is full."""
        pauses = _pauses(self.max_retries, options.get("timeout"))
        while True:
            try:
                with known_to_langchain():
                    return ask(prompt, **options)
            except EngineBusy:
                pause = next(pauses, None)
                if pause is None:
                    raise
            time.sleep(pause)

    async def _apatiently(self, ask: Callable[..., Awaitable[T]], prompt: Any, options: dict[str, Any]) -> T:
        """Like ``_patiently``, without holding the event loop up."""
        pauses = _pauses(self.max_retries, options.get("timeout"))
        while True:
            try:
                with known_to_langchain():
                    return await ask(prompt, **options)
            except EngineBusy:
                pause = next(pauses, None)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    def __copy__(self) -> Self:
        twin = super().__copy__()
        # What LangChain remembers of the fields for traces; the copy's may be about to change.
        twin.__dict__.pop("_serialized", None)
        return twin

    def _parameters(self) -> dict[str, Any]:
        """What tells this model from others: its name, and every option that may change an answer."""
        given = {name: getattr(self, name) for name in (*LoadingOptions.model_fields, *_ASKED)}
        fields = type(self).model_fields
        changed = {name: value for name, value in given.items() if value != fields[name].get_default()}
        family = {} if self.family is None else {"family": self.family}
        return {"model": self.model or default_model(), **family, **changed}

    def _tracing(
        self, kind: Literal["chat", "llm"], stop: list[str] | None, given: Mapping[str, Any]
    ) -> LangSmithParams:
        """Standard parameters for tracing; what a call sets comes before the object's own."""
        call = {name: value for name, value in given.items() if value is not None}
        model = call.get("model", self.model) or default_model()
        params = LangSmithParams(ls_provider=PROVIDER, ls_model_name=str(model), ls_model_type=kind)
        temperature = call.get("temperature", self.temperature)
        if temperature is not None:
            params["ls_temperature"] = temperature
        max_tokens = call.get("max_tokens", self.max_tokens)
        if max_tokens is not None:
            params["ls_max_tokens"] = max_tokens
        stops = stop if stop is not None else self.stop
        if stops:
            params["ls_stop"] = stops
        return params


def specification(model: Serializable) -> SerializedConstructor:
    """What LangChain writes an object down as: its class and the fields that were given, no weights and no secret.

    LangChain's loader makes objects of packages that it does not know only where the reader names their classes, so
    these do not say of themselves that they are serializable (``is_lc_serializable``); naming them works::

        load(dumpd(model), allowed_objects=[ChatLocal], valid_namespaces=["local_llms"])
    """
    fields = type(model).model_fields
    given = {name: getattr(model, name) for name in fields if name in model.model_fields_set}
    return {
        "lc": 1,
        "type": "constructor",
        "id": model.lc_id(),
        "kwargs": {name: value for name, value in given.items() if not fields[name].exclude},
    }


@cache
def package_version() -> str:
    """The version of local-llms, for traces."""
    return metadata.version("local-llms")


def _pauses(retries: int, timeout: float | None) -> Iterator[float]:
    """Seconds to wait before each retry, none of which would begin after ``timeout``."""
    waited = 0.0
    for number in range(retries):
        # Callers that were refused together come back one by one.
        pause = min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) * random.uniform(0.5, 1.0)
        waited += pause
        if timeout is not None and waited >= timeout:
            return
        yield pause
