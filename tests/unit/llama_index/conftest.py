"""A scripted model behind ``model=``, and what listens to llama-index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from local_llms import backends
from local_llms.backends.base import LoadOptions
from local_llms.testing.scripted import SPECIALS, Script, ScriptedBackend, echo_script, say

NAMES = {number: text for text, number in SPECIALS.items()}
Make = Callable[..., "Scripted"]


class Scripted:
    """A file that loads as a scripted backend."""

    def __init__(self, path: Path, arguments: dict[str, Any]) -> None:
        self.path = str(path)
        self.arguments = arguments
        self.loaded: list[ScriptedBackend] = []
        self.prompts: list[str] = []
        path.write_bytes(b"scripted")

    def load(self, path: Path, options: LoadOptions) -> ScriptedBackend:
        arguments = dict(self.arguments)
        arguments["script"] = self._listening(arguments.get("script", echo_script))
        if options.context_length is not None:
            arguments["context_length"] = options.context_length
        backend = ScriptedBackend(**arguments)
        self.loaded.append(backend)
        return backend

    def _listening(self, script: Script) -> Script:
        longest: list[int] = []

        def listen(tokens: Sequence[int]) -> int:
            # A request's first step has its prompt; each later one has the step before, and one token more.
            nonlocal longest
            if list(tokens[:-1]) != longest:
                self.prompts.append("".join(NAMES.get(token) or chr(token) for token in tokens))
            longest = list(tokens)
            return script(tokens)

        return listen

    @property
    def backend(self) -> ScriptedBackend:
        """The one loaded last."""
        return self.loaded[-1]


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make a scripted model: what it says, and the arguments of ``ScriptedBackend``."""
    made: dict[str, Scripted] = {}

    def choose(path: Path, backend: str | None) -> tuple[Any, str]:
        return SimpleNamespace(load=made[str(path)].load), "scripted"

    def make(text: str | None = "Hello there!", **arguments: Any) -> Scripted:
        if text is not None:
            arguments["script"] = say(text)
        arguments.setdefault("context_length", 2048)
        model = Scripted(tmp_path.resolve() / f"scripted-{len(made)}.gguf", arguments)
        made[model.path] = model
        return model

    monkeypatch.setattr(backends, "choose", choose)
    return make
