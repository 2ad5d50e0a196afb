"""Rendering with a template of the catalog, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from local_llms.catalog import find_template, with_thinking
from local_llms.prompts.render import MessageLike, render, text_of


def render_prompt(
    template: str,
    messages: Sequence[MessageLike],
    *,
    input: str | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    thinking: bool | None = None,
) -> str:
    """The text that a template of the catalog makes of messages.

    ``template`` is its name, such as "alpaca" or "chatml". ``messages`` are ``Message`` objects or dictionaries with
    ``role`` and ``content``. ``thinking``: whether the model is to think before it answers, which may mean another
    template of its family; None leaves it as the template has it. The rest is as in ``render``.

    The text is for reading and comparing. It is not what a model should be given: in it a marker that a user typed
    looks like one of the template's.

    Raises ModelNotFound for an unknown template, UnsupportedFeature where models are to think that do not, and what
    ``render`` raises.
    """
    prompt = render(
        with_thinking(find_template(template)[1], thinking),
        messages,
        input=input,
        tools=tools,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
        thinking=thinking,
    )
    return text_of(prompt)
