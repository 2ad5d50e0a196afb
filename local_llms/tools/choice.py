"""Which tools an answer may or must call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from local_llms.errors import OptionError, suggestion
from local_llms.types import Tool

MOST_TOOLS = 128

_WORDS = ("auto", "required", "none")


@dataclass(frozen=True, slots=True)
class ToolUse:
    """Tools and how they are to be used.

    ``choice``: "auto" (text or calls), "required" (calls only), "none" (text only), or the name of the one to call.
    ``parallel``: whether an answer may hold several calls. A small model that may repeat a call does so; hence it is
    one unless several are asked for.
    """

    tools: tuple[Tool, ...]
    choice: str = "auto"
    parallel: bool = False

    @classmethod
    def of(cls, tools: Sequence[Tool], choice: str | None, parallel: bool | None) -> ToolUse | None:
        """Checked; None where there are no tools. Raises OptionError."""
        names = [tool.name for tool in tools]
        if len(names) > MOST_TOOLS:
            raise OptionError(f"{len(names)} tools were given; at most {MOST_TOOLS} are taken.")
        for name in names:
            if not name or names.count(name) > 1 or any(letter in name for letter in '"\\\n'):
                raise OptionError(f"A tool is called {name!r}; names must differ, and hold no quotes and line ends.")
        choice = choice or "auto"
        if choice not in _WORDS and choice not in names:
            raise OptionError(f"tool_choice={choice!r} names no tool.{suggestion(choice, [*_WORDS, *names])}")
        if not tools:
            if choice == "required":
                raise OptionError('tool_choice="required" without tools. Give some, or leave it out.')
            return None
        return cls(tuple(tools), choice, bool(parallel) and choice in _WORDS)

    @property
    def callable(self) -> tuple[Tool, ...]:
        """Those that an answer may call."""
        if self.choice in _WORDS:
            return () if self.choice == "none" else self.tools
        return tuple(tool for tool in self.tools if tool.name == self.choice)
