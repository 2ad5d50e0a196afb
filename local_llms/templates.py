"""What the catalog's templates do with a conversation, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local_llms.catalog import Template, families, find_template
from local_llms.errors import LocalLLMError, ModelNotFound
from local_llms.prompts import MessageLike, Preview, PromptToken, Segment, preview, render, text_of
from local_llms.tools import told
from local_llms.types import Message

__all__ = ["EXAMPLE", "Places", "Preview", "PromptToken", "Segment", "places", "preview_template"]

EXAMPLE = (
    Message("user", "What is the capital of France?"),
    Message("assistant", "Paris."),
    Message("user", "And of Italy?"),
)
"""A conversation to look at a template with."""

_PROBE = "PROBE"
_TOOL = {"name": _PROBE, "description": _PROBE, "parameters": {"type": "object", "properties": {}}}


def preview_template(
    name: str,
    messages: Sequence[MessageLike] = EXAMPLE,
    *,
    input: str | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    thinking: bool | None = None,
) -> Preview:
    """What a template of the catalog makes of messages, structure and content apart.

    ``tools``: as JSON describes them; a template that has no place for them tells of them in words. ``thinking``: as
    for ``render_prompt``.

    Raises ModelNotFound for an unknown name, and what ``render_prompt`` raises.
    """
    template = _find(name)
    turns, known = told(template, messages, tools)
    return preview(
        template,
        turns,
        input=input,
        tools=known,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
        thinking=thinking,
    )


def _find(name: str) -> Template:
    try:
        return find_template(name)[1]
    except ModelNotFound:
        if name not in families():
            raise
        # A family's name is a fair guess, so that the answer is what that family has.
        family = families()[name]
        others = [template.name for template in family.templates if template.name != family.default_template]
        own = ", ".join(
            [f"{family.default_template} (its classes use it)", *others] if family.default_template else others
        )
        raise ModelNotFound("template", name, (), f"The family {name} has {own or 'none'}.") from None


@dataclass(frozen=True, slots=True)
class Places:
    """What a template has a place for: a system message in front, several turns, an input, tools, their results."""

    system: bool
    turns: bool
    input: bool
    tools: bool
    results: bool


def places(name: str) -> Places:
    """Find out by trying what a template of the catalog shows. Raises ModelNotFound for an unknown name."""
    template = find_template(name)[1]
    question, answer = Message("user", "Q"), Message("assistant", "A")

    def shows(messages: Sequence[Message], **options: Any) -> bool:
        try:
            return _PROBE in text_of(render(template, messages, **options))
        except LocalLLMError:
            return False

    return Places(
        system=shows([Message("system", _PROBE), question]),
        turns=shows([question, answer, Message("user", _PROBE)]) and shows([Message("user", _PROBE), answer, question]),
        input=shows([question], input=_PROBE),
        tools=shows([question], tools=[{"type": "function", "function": _TOOL}]),
        results=shows([question, answer, Message("tool", _PROBE)]),
    )
