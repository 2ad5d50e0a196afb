"""What the commands write with: answers on standard output, everything about them on standard error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Given = Mapping[str, Any]
"""Options that were given on the command line, by the library's names."""

WIDTH_OF_A_PIPE = 160
"""Columns of a table that no terminal limits."""

NARROW = 110
"""Columns of a terminal below which a table leaves out what can be spared."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def out() -> Console:
    """Standard output, as it is now."""
    return _console(stderr=False)


def err() -> Console:
    """Standard error, as it is now."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=WIDTH_OF_A_PIPE)
    return console


def visible(text: str) -> str:
    """``text`` without control characters other than tab and line break.

    What a model or a document says is a stranger's text: it must not move the cursor or rename the window.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def write_stream(texts: Iterable[str], written: list[str] | None = None) -> None:
    """Write the pieces to standard output as they come, and end the line.

    ``written`` gets each piece that was written: after an interrupt, it has what there was of the answer.
    """
    file = out().file
    last = ""
    for text in texts:
        file.write(visible(text))
        file.flush()
        last = text or last
        if written is not None:
            written.append(text)
    if last and not last.endswith("\n"):
        file.write("\n")
    file.flush()


def show_error(error: Exception) -> None:
    """One clear line on standard error."""
    from rich.text import Text

    text = " ".join(visible(str(error)).split())
    err().print(Text.assemble(("Error: ", "bold red"), text), soft_wrap=True)


def pairs(rows: Iterable[tuple[str, str | None]]) -> Table:
    """A table of two columns; rows whose value is None are left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value is not None:
            table.add_row(name, Text(visible(value)))
    return table


def columns(rows: Iterable[Mapping[str, str]], *, spare: Iterable[str] = ()) -> Table:
    """A table with a line for each row. The first column is never broken.

    ``spare``: titles of columns that a narrow terminal goes without.
    """
    from rich.table import Table
    from rich.text import Text

    shown = list(rows)
    left_out = set(spare) if out().width < NARROW else set()
    titles = [title for title in (shown[0] if shown else ()) if title not in left_out]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        longest = max(len(word) for row in shown for word in (*title.split(), *row[title].split(), ""))
        table.add_column(title, no_wrap=title == titles[0], overflow="fold", min_width=min(longest, 11))
    for row in shown:
        table.add_row(*(Text(visible(row[title])) for title in titles))
    return table


def size_text(size: int | None) -> str:
    """Bytes as people read them, in powers of ten."""
    if size is None:
        return "unknown"
    value = float(size)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def count_text(count: int) -> str:
    """A number of weights as people read it; "unknown" for 0."""
    if count == 0:
        return "unknown"
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return str(count)
