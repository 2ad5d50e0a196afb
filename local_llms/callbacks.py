"""Token callbacks: one object, the same for a LangChain model, a llama-index model and ``load_model``.

A callback runs in the thread, or on the event loop, of whoever reads the answer; never in the engine's thread, so a
slow one delays its own reader only. One that raises ends its request with CallbackError and touches no other.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from local_llms.types import Completion, TokenEvent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class TokenCallback:
    """Override what you need. Each request calls ``on_start``, then ``on_token``s, then ``on_end`` or ``on_error``."""

    def on_start(self, prompt_tokens: int) -> None:
        """The request was queued; its prompt has that many tokens."""

    def on_token(self, event: TokenEvent) -> None:
        """A token came: its text, id and log-probability."""

    def on_end(self, completion: Completion) -> None:
        """The answer is complete: text, usage and timings."""

    def on_error(self, error: BaseException) -> None:
        """The request failed or was cancelled."""


class PrintCallback(TokenCallback):
    """Writes the text as it comes, and a line break at the end."""

    def __init__(self, file: TextIO | None = None) -> None:
        """``file``: where to write; None is standard output at the time of writing."""
        self._file = file

    def on_token(self, event: TokenEvent) -> None:
        """Write the token's text."""
        self._write(event.text)

    def on_end(self, completion: Completion) -> None:
        """End the line."""
        self._write("\n")

    def on_error(self, error: BaseException) -> None:
        """End the line; the caller gets the error itself."""
        self._write("\n")

    def _write(self, text: str) -> None:
        file = self._file if self._file is not None else sys.stdout
        file.write(text)
        file.flush()


class RichCallback(TokenCallback):
    """Shows a live line with the number of tokens and their speed, for one or many requests at once."""

    def __init__(self, console: Console | None = None) -> None:
        """``console``: where to draw; None is standard error."""
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TextColumn("{task.completed:.0f} tokens"),
            TextColumn("{task.speed:.1f} tokens/s", justify="right"),
            TimeElapsedColumn(),
            console=console or Console(stderr=True),
            transient=True,
        )
        self._task: TaskID | None = None
        self._running = 0

    def on_start(self, prompt_tokens: int) -> None:
        """Start the display with the first request."""
        self._running += 1
        if self._task is None:
            self._task = self._progress.add_task(f"prompt {prompt_tokens} tokens", total=None, speed=0.0)
            self._progress.start()

    def on_token(self, event: TokenEvent) -> None:
        """Count the token."""
        if self._task is not None:
            task = self._progress.tasks[0]
            speed = task.completed / task.elapsed if task.elapsed else 0.0
            self._progress.update(self._task, advance=1, speed=speed)

    def on_end(self, completion: Completion) -> None:
        """Stop the display with the last request."""
        self._finish()

    def on_error(self, error: BaseException) -> None:
        """Stop the display with the last request."""
        self._finish()

    def _finish(self) -> None:
        self._running -= 1
        if self._running == 0:
            self._progress.stop()
            if self._task is not None:
                self._progress.remove_task(self._task)
                self._task = None
