"""Scripted models behind ``model=``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from local_llms.langchain import ChatLocal, LocalLLM
from local_llms.models import LoadedModel
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import ScriptedModel, scripted_model

Make = Callable[..., ScriptedModel]

ANSWER = "Hello, world. Good bye."


@pytest.fixture
def scripted() -> Iterator[Make]:
    """Make a model that says a text, or follows a script; the arguments are those of ``ScriptedBackend``."""
    with ExitStack() as stack:

        def make(text: str | None = ANSWER, *, template: str | None = "chatml", name: str = "model", **arguments: Any):
            if text is not None:
                arguments["script"] = say(text)
            arguments.setdefault("context_length", 2048)
            return stack.enter_context(
                scripted_model(lambda: ScriptedBackend(**arguments), template=template, name=name)
            )

        yield make


@pytest.fixture(params=[ChatLocal, LocalLLM], ids=["chat", "llm"])
def kind(request: pytest.FixtureRequest) -> Any:
    """Both classes that generate text."""
    return request.param


def text(answer: Any) -> str:
    """The text of an answer of either class, whole or in part."""
    return answer if isinstance(answer, str) else answer.text


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether a condition comes true soon."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


async def aeventually(condition: Callable[[], object]) -> None:
    """Wait until a condition comes true; the event loop goes on."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


def idle(handle: LoadedModel) -> bool:
    """Whether the engine has nothing left to do."""
    stats = handle.stats()
    return stats.running == 0 and stats.waiting == 0


def together(model: ScriptedModel) -> int:
    """The most requests that were decoded in one step; 0 before the first."""
    decodes = model.backend.decodes if model.backends else []
    return max((len(chunks) for chunks in decodes), default=0)
