"""How a call becomes a request of the engine: the prompt and what fits of it, the options, the adapter."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from local_llms.backends.base import Adapter
from local_llms.catalog import Template, with_thinking
from local_llms.constraints import Constraint, constraint_of, heed, json_value, outline
from local_llms.engine import Engine, Request, room_for
from local_llms.errors import EmptyPrompt, OptionError
from local_llms.given import PromptInput, messages_of
from local_llms.options import CallOptions
from local_llms.prompts import Prompt, check_length, check_not_empty, encode, encode_within, render
from local_llms.resolve import adapter_path
from local_llms.thinking import thinking_in
from local_llms.tools import ToolUse, as_dictionaries, constraint_for, format_of, spoken
from local_llms.types import Completion, Message, SamplingParams, Score

MOST_LIKELY = 20
"""The most that ``top_logprobs`` may ask for."""


@dataclass(frozen=True, slots=True)
class ModelAdapter:
    """The adapter that a loaded model has by itself.

    ``path``: None where it has none. ``built_in``: it was made a part of the weights when they were loaded.
    """

    path: Path | None = None
    built_in: bool = False

    def is_open(self, engine: Engine) -> bool:
        """Whether it is in memory, as it is unless somebody else had the weights loaded anew."""
        return self.built_in or self.path is None or engine.has_adapter(self.path)

    def for_call(self, call: CallOptions) -> Adapter | None:
        """The one to compute a call with. Raises OptionError, and what ``resolve.adapter_path`` raises."""
        if self.built_in and (call.adapter is not None or call.adapter_scale is not None):
            raise OptionError(
                f"The adapter {self.path} changes the vocabulary, so the model was loaded with it and computes nothing "
                "without it. Load the model once more for another adapter or another scale."
            )
        path = None if self.built_in else self.path
        if call.adapter is not None:
            path = adapter_path(call.adapter)
        if path is not None:
            return Adapter(path, 1.0 if call.adapter_scale is None else call.adapter_scale)
        if call.adapter_scale is not None:
            raise OptionError(f"adapter_scale={call.adapter_scale} without an adapter. Name one with adapter=.")
        return None


def answer_request(
    engine: Engine,
    template: Template,
    prompt: PromptInput,
    call: CallOptions,
    *,
    input: str | None,
    defaults: Mapping[str, Any],
    adapter: ModelAdapter,
    held_to: Mapping[str, Any],
    schema_in_prompt: bool,
    tools: ToolUse | None,
    logprobs: bool,
    top_logprobs: int,
) -> Request:
    """A request for an answer; ``defaults``: how its family samples. Raises what ``LoadedModel.submit`` raises.

    ``held_to``: what ``constraint_of`` takes.
    """
    if not 0 <= top_logprobs <= MOST_LIKELY:
        raise OptionError(f"top_logprobs={top_logprobs}: give a number from 0 to {MOST_LIKELY}.")
    messages, info = messages_of(prompt), engine.info
    if schema_in_prompt and held_to.get("schema") is not None:
        messages = _with_outline(messages, outline(held_to["schema"]))
    check_not_empty(messages, input)
    template = with_thinking(template, call.thinking)
    params = call.resolve(defaults, template.stop)
    constraint = _constraint(template, held_to, tools)

    def written(some: Sequence[Message]) -> Prompt:
        return write(template, some, input, tools, call.thinking)

    whole = written(messages)

    def ids_of(some: Sequence[Message]) -> list[int]:
        return encode(whole if len(some) == len(messages) else written(some), engine.backend, room_for(info))

    dropped: tuple[Message, ...] = ()
    if call.context_overflow == "drop_oldest":
        ids, dropped = encode_within(messages, ids_of, room_for(info) - _room_for_answer(params, room_for(info)))
    else:
        ids = ids_of(messages)
    stop_ids = (info.special_tokens.get(text) for text in template.stop_tokens)
    return Request(
        prompt_ids=tuple(ids),
        params=params if constraint is None else heed(constraint, params, call.stop),
        end_ids=info.end_ids.union(number for number in stop_ids if number is not None),
        # What a grammar asks for is there for whoever reads the answer by it.
        trims_answer=template.trims_answer and constraint is None,
        logprobs=logprobs or top_logprobs > 0,
        top_logprobs=top_logprobs,
        deadline=_deadline(call),
        adapter=adapter.for_call(call),
        constraint=None if constraint is None else engine.constraints.compile(constraint),
        # The prompt ends alike, whatever was left out of it.
        thinking=thinking_in(
            template.thinking,
            whole,
            engine.backend,
            wanted=call.thinking,
            most=params.max_thinking_tokens,
            stop=template.stop,
            exact=constraint is not None,
        ),
        dropped_messages=dropped,
    )


def _with_outline(messages: Sequence[Message], shape: str) -> Sequence[Message]:
    """The last question with a line about what to answer with."""
    place = max((number for number, message in enumerate(messages) if message.role == "user"), default=None)
    if place is None or not shape:
        return messages
    asked = replace(messages[place], content=f"{messages[place].content}\n\nAnswer with JSON: {shape}")
    return [*messages[:place], asked, *messages[place + 1 :]]


def write(
    template: Template,
    messages: Sequence[Message],
    input: str | None,
    tools: ToolUse | None,
    thinking: bool | None,
) -> Prompt:
    """The prompt of a conversation, with the tools that may be called in it. Raises what ``with_thinking`` raises."""
    template = with_thinking(template, thinking)
    form = format_of(template)
    shown = tools.callable if tools is not None else ()
    listed = as_dictionaries(shown) if shown and not form.describe else None
    return render(template, spoken(messages, form, shown), input=input, tools=listed, thinking=thinking)


def _constraint(template: Template, held_to: Mapping[str, Any], tools: ToolUse | None) -> Constraint | None:
    if tools is None:
        return constraint_of(**held_to)
    others = [name for name, value in held_to.items() if value is not None and name != "schema"]
    if others:
        raise OptionError(f"{others[0]}= and tools contradict each other. With tools an answer may have a schema=.")
    schema = held_to.get("schema")
    return constraint_for(format_of(template), tools, None if schema is None else json_value(schema))


def score_request(engine: Engine, text: str, call: CallOptions, adapter: ModelAdapter) -> tuple[Request, int]:
    """A request for the log-probabilities of a text as it is, and the number of special tokens in front of it."""
    info = engine.info
    front = [info.bos_id] if info.adds_bos and info.bos_id is not None else []
    # What stands behind a prompt opens the answer: from there on a model reads in one direction.
    front += [*info.prompt_prefix, *info.prompt_suffix]
    # A text to be scored may fill the room, since no answer follows.
    check_length([text], engine.backend, room_for(info) + 1)
    ids = engine.backend.tokenize(text)
    if not ids:
        raise EmptyPrompt("The text has no token to be scored. Give some text.")
    request = Request(prompt_ids=(*front, *ids), score=True, deadline=_deadline(call), adapter=adapter.for_call(call))
    return request, len(front)


def score_of(completion: Completion, request: Request, front: int) -> Score:
    """What came back for a text that was scored."""
    # The first token of all has none, since nothing precedes it.
    logprobs = (None, *completion.token_logprobs)
    return Score(request.prompt_ids[front:], logprobs[front:])


def _room_for_answer(params: SamplingParams, room: int) -> int:
    """Tokens kept free when old turns make room: what the answer may have, but no more than a quarter."""
    return max(1, min(params.max_tokens or room, room // 4))


def _deadline(call: CallOptions) -> float | None:
    return None if call.timeout is None else time.monotonic() + call.timeout
