"""Messages and a template become a prompt: text in segments, each structure or content.

Structure is what the template's author wrote, its ``bos_token`` and ``eos_token`` included. Content is the rest: what
messages and ``input`` say, and whatever a template computes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, get_args

from local_llms.errors import EmptyPrompt, OptionError, PromptError, TemplateError
from local_llms.prompts.interpreter.budget import Budget, Failure, Raised
from local_llms.prompts.interpreter.program import compile_template
from local_llms.prompts.interpreter.text import cut, end_of_final, final, pieces, structure
from local_llms.prompts.interpreter.values import Value, adopt
from local_llms.types import Message, Role

MessageLike = Message | Mapping[str, Any]
"""A message, or a dictionary with ``role`` and ``content`` and perhaps more that a template asks for."""

_ROLES = frozenset(get_args(Role))


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a prompt. ``trusted``: structure, written by the template's author; markers in it are tokens.

    ``ends_piece``: the model's own project tokenizes what ends here apart from what follows.
    """

    text: str
    trusted: bool
    ends_piece: bool = False


Prompt = tuple[Segment, ...]


class TemplateLike(Protocol):
    """What a template must tell; the catalog's ``Template`` does."""

    @property
    def name(self) -> str:
        """For messages about errors."""
        ...

    @property
    def source(self) -> str:
        """Jinja text."""
        ...

    @property
    def bos_token(self) -> str:
        """Text of the marker that begins a prompt; "" where there is none."""
        ...

    @property
    def eos_token(self) -> str:
        """Text of the marker that ends an answer; "" where there is none."""
        ...

    @property
    def default_system(self) -> str | None:
        """The system message of a conversation that has none."""
        ...

    @property
    def apart(self) -> str:
        """A regular expression: what the model's own project tokenizes apart from what follows; "" for nothing."""
        ...


def render(
    template: TemplateLike,
    messages: Sequence[MessageLike],
    *,
    input: str | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    thinking: bool | None = None,
    bos_token: str | None = None,
    eos_token: str | None = None,
) -> Prompt:
    """Write the messages down as the template does.

    The template sees ``messages``, ``input``, ``tools``, ``add_generation_prompt``, ``bos_token``, ``eos_token`` and
    ``default_system``, and what Hugging Face gives to chat templates besides.

    - ``input``: further text that the instruction is about; OptionError where the template has no place for it.
    - ``tools``: descriptions of functions, as JSON Schema dictionaries.
    - ``add_generation_prompt``: end with what opens the assistant's turn.
    - ``continue_final_message``: end with the last message's text, to be continued; it must be the assistant's.
      Nothing then opens a new turn, whatever ``add_generation_prompt`` says.
    - ``thinking``: what the template sees as ``enable_thinking`` and as ``thinking``, the two names that there are for
      it; neither is defined where it is None.
    - ``bos_token``, ``eos_token``: markers to use instead of the template's own.

    Raises EmptyPrompt where there is no message, OptionError for messages of the wrong shape, TemplateError where the
    template is malformed, raises, or takes too long or too much.
    """
    if isinstance(messages, (str, bytes, Mapping)):
        raise OptionError(f"messages must be a list of messages, not {type(messages).__name__}.")
    if not messages:
        raise EmptyPrompt("There is no message to answer. Give at least one.")
    if input is not None and not isinstance(input, str):
        raise OptionError(f"input must be text, not {type(input).__name__}.")
    budget = Budget()
    with _problems(template.name):
        turns: list[dict[str, Value]] = [_turn(budget, place, message) for place, message in enumerate(messages)]
        if continue_final_message:
            _open(turns[-1])
        names: dict[str, Value] = {
            "messages": turns,
            "input": adopt(budget, input),
            "tools": _adopt(budget, "The tools", tools),
            "documents": None,
            "add_generation_prompt": bool(add_generation_prompt) and not continue_final_message,
            "bos_token": structure(template.bos_token if bos_token is None else bos_token),
            "eos_token": structure(template.eos_token if eos_token is None else eos_token),
            "default_system": None if template.default_system is None else structure(template.default_system),
            **({} if thinking is None else {"enable_thinking": thinking, "thinking": thinking}),
        }
        program = compile_template(template.source)
        if input and "input" not in program.reads:
            raise OptionError(
                f"The template {template.name!r} has no place for a separate input. Put it into the message, "
                "or use a template that has one."
            )
        text = program.run(budget, names)
    if continue_final_message:
        end = end_of_final(text)
        if end is None:
            if str(_content(messages[-1])).strip():
                raise TemplateError(
                    f"The template {template.name!r} does not show the last message as it is: it cannot be continued."
                )
            # Nothing of it is to be seen, so to continue it is to begin it.
            return render(
                template,
                messages[:-1],
                input=input,
                tools=tools,
                thinking=thinking,
                bos_token=bos_token,
                eos_token=eos_token,
            )
        text = cut(text, 0, end)
    segments = [Segment(*piece) for piece in pieces(text)]
    return tuple(_end_pieces(segments, template.apart) if template.apart else segments)


def _end_pieces(segments: Sequence[Segment], apart: str) -> Iterator[Segment]:
    """The segments, cut where a match of ``apart`` ends. A match begins and ends in structure, whatever users write."""
    # Content is nothing but characters that no expression names.
    structure_only = "".join(segment.text if segment.trusted else "\0" * len(segment.text) for segment in segments)
    ends = [match.end() for match in re.finditer(apart, structure_only)]
    start = 0
    for segment in segments:
        done, stop = 0, start + len(segment.text)
        for end in ends:
            if start < end <= stop:
                yield Segment(segment.text[done : end - start], segment.trusted, ends_piece=True)
                done = end - start
        if done < len(segment.text):
            yield Segment(segment.text[done:], segment.trusted)
        start = stop


def names_read(source: str) -> frozenset[str]:
    """The names that occur in a template; none where it is malformed, which whoever renders with it will be told."""
    try:
        return compile_template(source).reads
    except (Failure, RecursionError):
        return frozenset()


def text_of(prompt: Prompt) -> str:
    """The prompt as one string. It does not show which marker is a token and which is a user's text."""
    return "".join(segment.text for segment in prompt)


def check_not_empty(prompt: str | Sequence[MessageLike], input: str | None = None) -> None:
    """Raise EmptyPrompt where there is nothing to answer: no message, or no text in any of them nor in ``input``."""
    texts = [prompt] if isinstance(prompt, str) else [_content(message) for message in prompt]
    if not texts:
        raise EmptyPrompt("There is no message to answer. Give at least one.")
    if not input and not any(texts):
        raise EmptyPrompt("The prompt has no text. Give a question or an instruction.")


def _content(message: MessageLike) -> Any:
    return message.content if isinstance(message, Message) else message.get("content")


def _turn(budget: Budget, place: int, message: MessageLike) -> dict[str, Value]:
    """A message as templates see it. One of the known roles is structure: templates build markers from it."""
    if isinstance(message, Message):
        thought = {"reasoning_content": message.reasoning} if message.reasoning else {}
        message = {"role": message.role, "content": message.content, **thought}
    if not isinstance(message, Mapping):
        raise OptionError(
            f"Message {place + 1} is a {type(message).__name__}; give a Message, or a dictionary with role and content."
        )
    for key in ("role", "content"):
        if not isinstance(message.get(key), str):
            found = type(message[key]).__name__ if key in message else "nothing"
            raise OptionError(f"Message {place + 1} needs text as its {key}, not {found}.")
    turn = {str(key): _adopt(budget, f"Message {place + 1}", value) for key, value in message.items()}
    if message["role"] in _ROLES:
        turn["role"] = structure(message["role"])
    return turn


def _adopt(budget: Budget, what: str, value: object) -> Value:
    """What a caller gives as a template's value. Raises OptionError, naming ``what``, for what JSON cannot hold."""
    try:
        return adopt(budget, value)
    except Failure as failure:
        raise OptionError(f"{what} cannot be given to a template: {failure.message}.") from None


def _open(turn: dict[str, Value]) -> None:
    """Mark the content of the last turn, so that its end can be found."""
    if turn["role"] != "assistant":
        raise PromptError("Only a message of the assistant can be continued, and the last one is not the assistant's.")
    turn["content"] = final(str(turn["content"]))


@contextmanager
def _problems(name: str) -> Iterator[None]:
    """Turn what goes wrong in a template into TemplateError."""
    try:
        yield
    except Raised as raised:
        raise TemplateError(f"The template {name!r} refuses these messages: {raised.message}") from None
    except Failure as failure:
        line = f", line {failure.line}" if failure.line else ""
        raise TemplateError(f"The template {name!r} cannot be carried out{line}: {failure.message}.") from None
    except RecursionError:
        raise TemplateError(f"The template {name!r} cannot be carried out: it nests too deeply.") from None
