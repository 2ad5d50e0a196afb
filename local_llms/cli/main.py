"""The list of commands of ``local-llms``; ``program`` runs it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from local_llms.cli.bench import bench
from local_llms.cli.cache import cache
from local_llms.cli.chat import chat
from local_llms.cli.compare import compare
from local_llms.cli.complete import complete
from local_llms.cli.console import out
from local_llms.cli.demo import demo
from local_llms.cli.info import info
from local_llms.cli.models_table import list_
from local_llms.cli.pull import pull
from local_llms.cli.quantize import quantize
from local_llms.cli.template import template

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "chat": chat,
    "complete": complete,
    "list": list_,
    "info": info,
    "template": template,
    "pull": pull,
    "cache": cache,
    "bench": bench,
    "quantize": quantize,
    "compare": compare,
}


class LazyGroup(TyperGroup):
    """Builds a command's options when it is run: showing the list of commands needs none of them, and is quick."""

    _listing = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the list of commands."""
        self._listing = True
        super().format_help(ctx, formatter)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name; only its name and description where the list is shown."""
        listed = super().get_command(ctx, cmd_name)
        return listed if listed is None or self._listing else _build(cmd_name)


app = typer.Typer(
    name="local-llms",
    cls=LazyGroup,
    help="Language models on this machine, for LangChain and llama-index.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        out().print(f"local-llms {metadata.version('local-llms')}")
        raise typer.Exit


@app.callback()
def _all(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def _listed() -> None:
    pass


for _name, _function in COMMANDS.items():
    app.command(_name, help=_function.__doc__)(_listed)


def _build(name: str) -> Any:
    from local_llms.cli.parameters import command

    single = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
    single.command(name)(command(COMMANDS[name]))
    return typer.main.get_command(single)
