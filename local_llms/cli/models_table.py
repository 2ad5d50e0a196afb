"""``local-llms list``: the models of the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from local_llms.cli.console import count_text, out, size_text
from local_llms.errors import OptionError, suggestion

if TYPE_CHECKING:
    from local_llms.catalog.schema import CommercialUse


def list_(
    family: Annotated[str | None, typer.Option(help="Only models of this family.")] = None,
    commercial_use: Annotated[
        str | None, typer.Option("--commercial-use", help="Only models with this: yes, no, conditional, unknown.")
    ] = None,
) -> None:
    """List the models that can be loaded by name."""
    from rich.table import Table

    from local_llms.about import is_here
    from local_llms.catalog import default_model, list_models

    defaults = {default_model("generate"), default_model("embed")}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("model", "family", "makes", "weights", "size", "licence", "commercial use", "here"):
        table.add_column(title, no_wrap=title == "model", overflow="fold")
    for card in list_models(family=family, commercial_use=_commercial_use(commercial_use)):
        table.add_row(
            card.name + (" *" if card.name in defaults else ""),
            card.family,
            "text" if card.kind == "generate" else "vectors",
            count_text(card.parameters),
            size_text(card.size),
            card.licence,
            card.commercial_use,
            "yes" if is_here(card) else "no",
        )
    out().print(table)
    out().print("* taken when no model is named. A model that is not here is fetched at its first use.", style="dim")


def _commercial_use(value: str | None) -> CommercialUse | None:
    from local_llms.catalog.schema import CommercialUse

    known = get_args(CommercialUse)
    if value is None or value in known:
        return cast("CommercialUse | None", value)
    raise OptionError(f"--commercial-use cannot be {value!r}.{suggestion(value, known)}")
