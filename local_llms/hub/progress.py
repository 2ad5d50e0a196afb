"""How a download tells how far it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichBar


class Progress(Protocol):
    """Hears about one download: ``start``, then ``advance_to`` many times, then ``finish``, also on failure."""

    def start(self, name: str, total_bytes: int) -> None:
        """A download of ``total_bytes`` for the model ``name`` begins."""
        ...

    def advance_to(self, done_bytes: int) -> None:
        """So many bytes are there; never fewer than at the call before."""
        ...

    def finish(self) -> None:
        """The download is over, whether it succeeded or not."""
        ...


class Silent:
    """Shows nothing."""

    def start(self, name: str, total_bytes: int) -> None:
        """Show nothing."""

    def advance_to(self, done_bytes: int) -> None:
        """Show nothing."""

    def finish(self) -> None:
        """Show nothing."""


class ProgressBar:
    """A bar on standard error that goes away when the work is over."""

    def __init__(self, doing: str = "Fetching") -> None:
        """``doing``: what stands before the model's name."""
        self._doing = doing
        self._bar: RichBar | None = None

    def start(self, name: str, total_bytes: int) -> None:
        """Show the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.add_task(f"{self._doing} {name}", total=total_bytes)
        self._bar.start()

    def advance_to(self, done_bytes: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done_bytes)

    def finish(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def default_progress(doing: str = "Fetching") -> Progress:
    """A bar where standard error is a terminal; nothing elsewhere."""
    return ProgressBar(doing) if sys.stderr is not None and sys.stderr.isatty() else Silent()
