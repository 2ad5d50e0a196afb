"""``local-llms cache``: the model files that are kept on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from local_llms.cli.console import out, size_text, visible
from local_llms.errors import ModelFileError, OptionError, suggestion

ACTIONS = ("list", "verify", "remove")


def cache(
    action: Annotated[str, typer.Argument(help="list, verify or remove.")],
    name: Annotated[
        str | None,
        typer.Argument(help="A name of the catalog, hf:org/repo or hf:org/repo:file. remove also takes unfinished."),
    ] = None,
) -> None:
    """List the model files that are kept here, verify them by their digests, or remove some."""
    if action not in ACTIONS:
        raise OptionError(f"cache cannot {action!r}.{suggestion(action, ACTIONS)}")
    if action == "remove":
        _remove(name)
    elif action == "verify":
        _verify(name)
    else:
        _list(name)


def _list(name: str | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from local_llms.kept import find_kept, kept_models

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("model", "size", "file"):
        table.add_column(title, overflow="fold")
    models = kept_models() if name is None else find_kept(name)
    for kept in models:
        table.add_row(Text(visible(kept.name)), size_text(kept.size), Text(visible(str(kept.path))))
    out().print(table if models else "No model is kept here. The first use of one fetches it.")


def _verify(name: str | None) -> None:
    from local_llms.kept import find_kept, kept_models

    damaged = []
    for kept in kept_models() if name is None else find_kept(name):
        state = {True: "good", False: "damaged", None: "no digest is known"}[kept.verify()]
        out().print(f"{state}: {visible(kept.name)}", soft_wrap=True, markup=False)
        if state == "damaged":
            damaged.append(kept.name)
    if damaged:
        raise ModelFileError(
            f"Damaged: {', '.join(damaged)}. Such a file is fetched again when it is used, or with local-llms pull."
        )


def _remove(name: str | None) -> None:
    from local_llms.kept import remove, remove_unfinished

    if name is None:
        raise OptionError("Name what to remove, as local-llms cache list shows it; or unfinished, for broken pulls.")
    freed = remove_unfinished() if name == "unfinished" else remove(name)
    out().print(f"{size_text(freed)} are free now.")
