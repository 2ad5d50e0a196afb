"""Token callbacks: one object, the same for a LangChain model, a llama-index model and ``load_model``.

A callback runs in the thread, or on the event loop, of whoever reads the answer; never in the engine's thread, so a
slow one delays its own reader only. One that raises ends its request with CallbackError and touches no other.
"""

from __future__ import annotations

import sys
import threading
import time
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
    """Shows a live line with the number of tokens and their speed, for one or many requests at once, in any threads."""

    def __init__(self, console: Console | None = None) -> None:
        """``console``: where to draw; None is standard error."""
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TextColumn("{task.completed:.0f} tokens"),
            TextColumn("{task.fields[rate]:.1f} tokens/s", justify="right"),
            TimeElapsedColumn(),
            console=console or Console(stderr=True),
            transient=True,
        )
        # Re-entrant: the garbage collector may end another stream, whose callback this is too, inside any call.
        self._lock = threading.RLock()
        self._task: TaskID | None = None
        self._running = 0
        self._tokens = 0
        self._started = 0.0

    def on_start(self, prompt_tokens: int) -> None:
        """Start the display with the first request."""
        with self._lock:
            self._running += 1
            if self._task is None:
                self._tokens, self._started = 0, time.monotonic()
                self._task = self._progress.add_task(f"prompt {prompt_tokens} tokens", total=None, rate=0.0)
                self._progress.start()
            elif self._running > 1:
                self._progress.update(self._task, description=f"{self._running} requests")

    def on_token(self, event: TokenEvent) -> None:
        """Count the token."""
        with self._lock:
            if self._task is not None:
                self._tokens += 1
                rate = self._tokens / max(time.monotonic() - self._started, 1e-3)
                self._progress.update(self._task, completed=self._tokens, rate=rate)

    def on_end(self, completion: Completion) -> None:
        """Stop the display with the last request."""
        self._finish()

    def on_error(self, error: BaseException) -> None:
        """Stop the display with the last request."""
        self._finish()

    def _finish(self) -> None:
        with self._lock:
            self._running -= 1
            if self._running <= 0 and self._task is not None:
                self._progress.stop()
                self._progress.remove_task(self._task)
                self._task, self._running = None, 0
