"""``local-llms compare``: models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from local_llms.cli.console import Given, err, out, size_text, visible

if TYPE_CHECKING:
    from local_llms.comparison import Measurement


def compare(
    models: Annotated[list[str], typer.Argument(help="Names of the catalog, files, or places on the hub.")],
    loading: Given,
    text: Annotated[Path | None, typer.Option(help="A text file; without it, Python's own manual.")] = None,
    characters: Annotated[int, typer.Option(min=1, help="How much of the text is predicted.")] = 8000,
    window: Annotated[
        int | None, typer.Option(min=1, help="Characters of a passage; without it, what all models hold, at most 2000.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Characters from one passage to the next; without it, half a window.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of an answer whose speed is measured.")] = 48,
) -> None:
    """Show size, memory, tokens a second and perplexity of models side by side. Each is measured by itself."""
    from local_llms.comparison import Task, default_text, default_window, measure_apart
    from local_llms.comparison.measurement import read_text

    content = (default_text() if text is None else read_text(text))[:characters]
    window = window or default_window(models, loading)
    stride = stride or max(1, window // 2)
    found = []
    for model in models:
        with err().status(f"Measuring {visible(model)} …"):
            found.append(measure_apart(Task(model, content, window, stride, tokens, loading)))
    _show(found)
    err().print(
        f"{len(content)} characters, in passages of {window} that begin {stride} apart; "
        "perplexity compares models of one vocabulary, bits per byte all.",
        style="dim",
    )


def _show(found: list[Measurement]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", overflow="fold")
    table.add_column("type")
    for title in ("size", "memory", "tokens/s", "perplexity", "bits/byte"):
        table.add_column(title, justify="right")
    for one in found:
        table.add_row(
            Text(visible(one.model)),
            Text(visible(one.quantization)),
            size_text(one.size),
            size_text(one.memory) if one.memory else "unknown",
            f"{one.speed:.1f}" if one.speed is not None else "–",
            f"{one.perplexity:.3f}" if one.perplexity < 1e6 else f"{one.perplexity:.2e}",
            f"{one.bits_per_byte:.4f}",
        )
    out().print(table)
