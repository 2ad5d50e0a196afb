"""What a model thinks before it answers: on standard error, dimmed, so that standard output has the answer alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from local_llms.cli.console import err, visible

if TYPE_CHECKING:
    from local_llms.types import TokenEvent


def texts_of(events: Iterable[TokenEvent], thought: list[str] | None = None) -> Iterator[str]:
    """The texts of an answer; its thought is written as it comes. ``thought`` gets each piece that was written."""
    from rich.text import Text

    console, thinking = err(), False
    for event in events:
        if event.reasoning:
            console.print(Text(visible(event.reasoning), "dim"), end="", soft_wrap=True)
            thinking = True
            if thought is not None:
                thought.append(event.reasoning)
        if event.text and thinking:
            console.print()
            thinking = False
        yield event.text
    if thinking:
        console.print()
