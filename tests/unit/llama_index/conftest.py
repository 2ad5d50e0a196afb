"""Scripted models behind ``model=`` that write down what they are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from local_llms.testing.scripted import SPECIALS, Script, ScriptedBackend, echo_script, say
from local_llms.testing.scripted_model import ScriptedModel, scripted_model

Load = Callable[[], object]
"""Called when the weights are loaded."""

NAMES = {number: text for text, number in SPECIALS.items()}


@dataclass
class Scripted:
    """A model file, and the prompts that it has answered, markers included."""

    model: ScriptedModel
    prompts: list[str]

    @property
    def path(self) -> str:
        return self.model.path

    @property
    def loaded(self) -> list[ScriptedBackend]:
        return self.model.backends

    @property
    def backend(self) -> ScriptedBackend:
        return self.model.backend


def listening(script: Script, prompts: list[str]) -> Script:
    longest: list[int] = []

    def listen(tokens: Sequence[int]) -> int:
        # A request's first step has its prompt; each later one has the step before, and one token more.
        nonlocal longest
        if list(tokens[:-1]) != longest:
            prompts.append("".join(NAMES.get(token) or chr(token) for token in tokens))
        longest = list(tokens)
        return script(tokens)

    return listen


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    """Make a model that says a text, or follows a script; the arguments are those of ``ScriptedBackend``."""
    with ExitStack() as stack:

        def make(
            text: str | None = "Hello there!", *, on_load: Callable[[], object] = bool, **arguments: Any
        ) -> Scripted:
            prompts: list[str] = []
            script = say(text) if text is not None else arguments.pop("script", echo_script)
            arguments.setdefault("context_length", 2048)

            def load() -> ScriptedBackend:
                on_load()
                return ScriptedBackend(listening(script, prompts), **arguments)

            return Scripted(stack.enter_context(scripted_model(load, template=None)), prompts)

        yield make
