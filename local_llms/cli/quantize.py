"""``local-llms quantize``: store a model's weights smaller."""

from __future__ import annotations

from typing import Annotated

import typer

from local_llms.cli.console import err, out, size_text


def quantize(
    model: Annotated[str, typer.Argument(help="A name of the catalog, a GGUF file, or hf:org/repo:file.")],
    to: Annotated[str, typer.Option("--to", help="int8, int4, or a form of llama.cpp's: q8_0, q4_0, q4_k_m, …")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The file to write; without it, a file in the cache.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
) -> None:
    """Store the weights of a GGUF model smaller, and write where the new file is."""
    from local_llms.quantizing import quantize as write

    path = write(model, to, output=output, overwrite=overwrite)
    err().print(size_text(path.stat().st_size), style="dim")
    out().print(str(path), soft_wrap=True)
