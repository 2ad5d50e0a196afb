"""``local-llms list``: the models of the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from local_llms.cli.console import columns, count_text, out, size_text
from local_llms.errors import OptionError, suggestion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local_llms.catalog.schema import CommercialUse


def list_(
    family: Annotated[str | None, typer.Option(help="Only models of this family.")] = None,
    commercial_use: Annotated[
        str | None, typer.Option("--commercial-use", help="Only models with this: yes, no, conditional, unknown.")
    ] = None,
    adapters: Annotated[
        bool, typer.Option("--adapters", help="The adapters instead, each of which changes what a model does.")
    ] = False,
) -> None:
    """List the models that can be loaded by name, or the adapters."""
    if adapters:
        _adapters(family, _commercial_use(commercial_use))
    else:
        _models(family, _commercial_use(commercial_use))


def _models(family: str | None, commercial_use: CommercialUse | None) -> None:
    from local_llms.about import size_here
    from local_llms.catalog import default_model, list_adapters, list_models

    defaults = {default_model("generate"), default_model("embed")}
    rows = []
    for card in list_models(family=family, commercial_use=commercial_use):
        here = size_here(card)
        size = here or card.size
        rows.append(
            {
                "model": card.name + (" *" if card.name in defaults else ""),
                "family": card.family,
                "makes": "text" if card.kind == "generate" else "vectors",
                "weights": count_text(card.parameters),
                "size": size_text(size) if size else "–",
                "licence": card.licence,
                "commercial use": card.commercial_use,
                "here": _here(card.sources, here),
            }
        )
    out().print(columns(rows, spare=("family", "makes")) if rows else "The catalog has no such model.")
    if rows:
        out().print(
            "* taken when no model is named. A model that is not here is fetched at its first use; a size that is not "
            "shown is known then.",
            style="dim",
        )
    count = len(list_adapters(family=family, commercial_use=commercial_use))
    if count:
        out().print(f"There are adapters too, {count} of them: local-llms list --adapters.", style="dim")


def _adapters(family: str | None, commercial_use: CommercialUse | None) -> None:
    from local_llms.about import size_here
    from local_llms.catalog import list_adapters

    rows = [
        {
            "adapter": card.name,
            "over": card.base,
            "family": card.family,
            "licence": card.licence,
            "commercial use": card.commercial_use,
            "here": _here(card.sources, size_here(card)),
        }
        for card in list_adapters(family=family, commercial_use=commercial_use)
    ]
    out().print(columns(rows, spare=("family",)) if rows else "The catalog has no such adapter.")
    if rows:
        out().print(
            "Use one with adapter= over any copy of its base, or as a model: the base is then loaded with it.",
            style="dim",
        )


def _here(sources: Sequence[object], size: int | None) -> str:
    """Whether the files are here; "by hand" where they cannot be fetched: local-llms info then says more."""
    return "yes" if size is not None else "no" if sources else "by hand"


def _commercial_use(value: str | None) -> CommercialUse | None:
    from local_llms.catalog.schema import CommercialUse

    known = get_args(CommercialUse)
    if value is None or value in known:
        return cast("CommercialUse | None", value)
    raise OptionError(f"--commercial-use cannot be {value!r}.{suggestion(value, known)}")
