"""``local-llms info``: what a model is, and what is chosen for it and why."""

from __future__ import annotations

from typing import Annotated

import typer

from local_llms.cli.console import Given, count_text, out, pairs, size_text

_MAKES = {"generate": "text", "embed": "vectors", "adapter": "nothing by itself: it is an adapter"}


def info(
    model: Annotated[str, typer.Argument(help="A name of the catalog, or a file or folder; an adapter as well.")],
    loading: Given,
) -> None:
    """Show what a model is, and what is chosen for it and why. Reads the file's header and loads nothing."""
    from local_llms.about import describe

    about = describe(model, **loading)
    if about.path is not None:
        here = str(about.path)
    elif about.can_be_fetched:
        here = f"not here yet; the first use fetches {size_text(about.download) if about.download else 'it'}"
    else:
        here = "not here, and nobody offers it: the notes say how to come by it"
    template = f"{about.template or 'none'}: {about.template_reason}" if about.kind == "generate" else None
    context = f"{about.trained_context_length} tokens" if about.trained_context_length else None
    vocabulary = about.vocabulary or (f"{about.vocabulary_size} tokens" if about.vocabulary_size else None)
    out().print(
        pairs(
            [
                ("model", about.name),
                ("adapter", about.adapter),
                ("file", here),
                ("size", size_text(about.size) if about.size else None),
                ("makes", _MAKES[about.kind]),
                ("family", about.family),
                ("architecture", about.architecture),
                ("change", about.change),
                ("trained on", about.base),
                ("weights", count_text(about.parameters)),
                ("layers", str(about.layers) if about.layers else None),
                ("vocabulary", vocabulary),
                ("quantization", about.quantization),
                ("trained context", context),
                ("template", template),
                ("thinks", "before it answers, as thinking= says" if about.thinks else None),
                ("backend", f"{about.backend}: {about.backend_reason}" if about.backend else about.backend_reason),
                ("licence", about.licence),
                ("commercial use", about.commercial_use),
                ("licence from", about.licence_source or None),
                ("notes", about.notes or None),
            ]
        )
    )
