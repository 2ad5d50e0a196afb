"""Options, declared once. Both adapters, the command and ``load_model`` take exactly these.

Every field may be None: not given. Defaults come from the model's family, then from ``SamplingParams``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from local_llms.errors import OptionError, UnknownOption
from local_llms.types import SamplingParams

OptionsT = TypeVar("OptionsT", bound=BaseModel)

DEFAULT_CONTEXT = 8192
"""Tokens: the longest context that a model gets without being asked."""


class LoadingOptions(BaseModel):
    """How a model is loaded. Models with equal loading options share one set of weights."""

    model_config = ConfigDict(protected_namespaces=())

    backend: str | None = Field(default=None, description="Backend module; None lets the file decide.")
    template: str | None = Field(
        default=None,
        description='Name of a prompt template, or "plain" for none. None takes the model\'s own.',
    )
    context_length: int | None = Field(
        default=None, ge=8, description="Tokens that prompt and answer may have; None: the model's own, at most 8192."
    )
    cache_tokens: int | None = Field(
        default=None,
        ge=8,
        description="Tokens in the KV cache, shared by requests and kept prefixes; None: max(context_length, 8192).",
    )
    cache_dtype: Literal["f16", "q8_0", "f32"] = Field(
        default="f16",
        description="Number type of the KV cache. q8_0 takes half the memory; f32 takes twice as much, is slower, and "
        "gives what other libraries compute to the last digits.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where to compute.")
    gpu_layers: int | None = Field(default=None, ge=0, description="Layers on the GPU; None: all where there is one.")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads; None: the cores of this process. On a busy machine fewer are quicker.",
    )
    dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        default=None, description="Number type of the weights; None leaves it to the backend."
    )
    quantization: Literal["int8", "int4"] | None = Field(
        default=None, description="Store the weights smaller while loading; None leaves them as the file has them."
    )
    adapter: str | None = Field(
        default=None,
        description="A LoRA or P-tuning adapter: a path, a place on the hub, or a name of the catalog.",
    )
    max_parallel: int = Field(default=16, ge=1, le=64, description="Requests that decode in one batch.")
    max_queue: int = Field(default=256, ge=1, description="Requests that may wait; one more raises EngineBusy.")
    idle_unload: float | None = Field(
        default=None,
        gt=0,
        description="Seconds without a request after which the weights are freed, until the next one.",
    )

    @field_validator("adapter", mode="before")
    @classmethod
    def _adapter_path_as_text(cls, value: Any) -> Any:
        return path_as_text(value)


class SamplingOptions(BaseModel):
    """How one request is sampled. A field left at None takes the default of the model's family."""

    model_config = ConfigDict(protected_namespaces=())

    temperature: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="0 is greedy; larger is more random."
    )
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="Keep the fewest tokens whose probabilities sum to this; 1 keeps all."
    )
    top_k: int | None = Field(
        default=None, ge=0, description="Keep this many of the most probable tokens; 0 keeps all."
    )
    min_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Keep tokens at least this fraction as probable as the most probable one; 0 keeps all.",
    )
    typical_p: float | None = Field(
        default=None, gt=0, le=1, description="Keep the tokens nearest to the expected surprise; 1 keeps all."
    )
    repetition_penalty: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Lowers tokens of prompt and answer; 1 is off."
    )
    frequency_penalty: float | None = Field(
        default=None, allow_inf_nan=False, description="Subtracted for each occurrence in the answer; 0 is off."
    )
    presence_penalty: float | None = Field(
        default=None, allow_inf_nan=False, description="Subtracted once for a token in the answer; 0 is off."
    )
    penalty_decay: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="What occurrence counts are multiplied by at each token; 1 forgets nothing.",
    )
    logit_bias: dict[int, float] | None = Field(default=None, description="Token id → number added to its logit.")
    seed: int | None = Field(
        default=None, ge=0, description="The same seed gives the same tokens; None takes a fresh one."
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="The most tokens to generate, those of a thought included."
    )
    max_thinking_tokens: int | None = Field(
        default=None, ge=0, description="The most tokens of a thought; then it is closed, and the answer begins."
    )
    stop: list[str] | None = Field(default=None, description="Strings that end the answer; not part of it.")

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list | tuple | set | frozenset):
            return values
        if any(text == "" for text in values):
            raise ValueError("a stop string must not be empty")
        return list(values)

    def resolve(self, defaults: Mapping[str, Any], stop: Sequence[str] = ()) -> SamplingParams:
        """Concrete parameters: what was given, else ``defaults`` (of the family), else those of SamplingParams.

        ``stop``: strings that end an answer in any case, those of the template.
        """
        given = {name: value for name, value in self if name in SamplingOptions.model_fields and value is not None}
        merged = {**defaults, **given}
        merged["stop"] = (*(merged.get("stop") or ()), *stop)
        return replace(SamplingParams(), **merged)


class CallOptions(SamplingOptions):
    """What one call may set: sampling, and how the request is treated."""

    template: str | None = Field(default=None, description="Name of another prompt template for this call.")
    timeout: float | None = Field(default=None, gt=0, description="Seconds after which the request is given up.")
    thinking: bool | None = Field(
        default=None, description="Whether the model thinks before it answers; None: as its template has it."
    )
    context_overflow: Literal["error", "drop_oldest"] | None = Field(
        default=None,
        description="What happens to a conversation that is too long; None: error. drop_oldest leaves out the oldest "
        "turns, keeps system messages and the last turn, and tells what it left out.",
    )
    adapter: str | None = Field(default=None, description="Another adapter for this call; None: that of the model.")
    adapter_scale: float | None = Field(
        default=None, allow_inf_nan=False, description="How strong the adapter is: 1 as trained, 0 not at all."
    )

    @field_validator("adapter", mode="before")
    @classmethod
    def _adapter_path_as_text(cls, value: Any) -> Any:
        return path_as_text(value)

    @classmethod
    def parse(cls, where: str, options: Mapping[str, Any]) -> Self:
        """Validate keyword arguments. Raises UnknownOption or OptionError, naming ``where``."""
        return parse_options(cls, where, options)


def path_as_text(value: Any) -> Any:
    """A path as text that cannot be taken for a name of the catalog; any other value unchanged."""
    if not isinstance(value, os.PathLike):
        return value
    path = os.fspath(value)
    return path if os.sep in path else os.path.join(os.curdir, path)


def parse_options(kind: type[OptionsT], where: str, options: Mapping[str, Any]) -> OptionsT:
    """Build ``kind`` from keyword arguments. Raises UnknownOption or OptionError, naming ``where``."""
    check_names(where, options, kind.model_fields)
    try:
        return kind(**options)
    except ValidationError as error:
        raise option_error(where, error) from None


def check_names(where: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise UnknownOption for the first given name that is not known."""
    for name in given:
        if name not in known:
            raise UnknownOption(name, known, where)


def option_error(where: str, error: ValidationError) -> OptionError:
    """One sentence per wrong value, in our own error."""
    problems = []
    for item in error.errors(include_url=False):
        name = ".".join(str(part) for part in item["loc"]) or "options"
        message = item["msg"].removeprefix("Value error, ")
        problems.append(f"{name}={item['input']!r}: {message[0].lower()}{message[1:]}")
    return OptionError(f"{where} was given " + "; ".join(problems) + ".")
