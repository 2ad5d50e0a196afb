"""``local-llms complete``: one prompt, one answer."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from local_llms.cli.console import Given, err, write_stream
from local_llms.cli.figures import figures_line
from local_llms.cli.thoughts import texts_of


def complete(
    prompt: Annotated[str, typer.Argument(help="The text to answer; - reads it from standard input.")],
    loading: Given,
    call: Given,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A name of the catalog, or a file.")] = None,
    input: Annotated[str | None, typer.Option(help="A text that the instruction is about.")] = None,
    figures: Annotated[bool, typer.Option("--figures", help="Show tokens and speed afterwards.")] = False,
) -> None:
    """Answer one prompt, token by token. --template plain sends it as it is."""
    from local_llms.models import load_model

    text = sys.stdin.read() if prompt == "-" else prompt
    with load_model(model, **loading) as loaded, loaded.stream(text, input=input, **call) as stream:
        write_stream(texts_of(stream))
        if figures and stream.completion is not None:
            err().print(figures_line([stream.completion]), style="dim")
