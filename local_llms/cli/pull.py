"""``local-llms pull``: fetch a model without loading it."""

from __future__ import annotations

from typing import Annotated

import typer

from local_llms.cli.console import err, out, size_text


def pull(
    model: Annotated[str, typer.Argument(help="A name of the catalog, hf:org/repo or hf:org/repo:file.")],
) -> None:
    """Fetch a model or adapter, or a newer version of it, and write where it is. A broken pull goes on where it was."""
    from local_llms.kept import pull as fetch
    from local_llms.kept import size_of

    path = fetch(model)
    err().print(f"verified, {size_text(size_of(path))}", style="dim")
    out().print(str(path), soft_wrap=True)
