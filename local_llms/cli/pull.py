"""``local-llms pull``: fetch a model without loading it."""

from __future__ import annotations

from typing import Annotated

import typer

from local_llms.cli.console import err, out, size_text


def pull(
    model: Annotated[str, typer.Argument(help="A name of the catalog, hf:org/repo or hf:org/repo:file.")],
) -> None:
    """Fetch a model, or a newer version of it, and write where it is. An interrupted pull goes on where it stopped."""
    from local_llms.kept import pull as fetch

    path = fetch(model)
    err().print(f"verified, {size_text(path.stat().st_size)}", style="dim")
    out().print(str(path), soft_wrap=True)
