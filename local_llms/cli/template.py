"""``local-llms template``: what a conversation becomes in a prompt template."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from local_llms.cli.console import columns, err, out, pairs
from local_llms.cli.marked import marked, quoted, spoken
from local_llms.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local_llms.catalog import Template
    from local_llms.templates import Preview, PromptToken


def template(
    name: Annotated[
        str | None, typer.Argument(help="A template. Without one they are listed; with --model the model's is taken.")
    ] = None,
    message: Annotated[
        list[str] | None, typer.Argument(help="What user and assistant say in turn. Without it an example is shown.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    messages: Annotated[
        str | None, typer.Option(help='A JSON file of messages, [{"role": "user", "content": "…"}, …]; - reads stdin.')
    ] = None,
    input: Annotated[str | None, typer.Option(help="A text that the last instruction is about.")] = None,
    tools: Annotated[str | None, typer.Option(help="A JSON file of tools, as JSON Schema.")] = None,
    no_generation_prompt: Annotated[
        bool, typer.Option("--no-generation-prompt", help="Do not open the assistant's turn.")
    ] = False,
    go_on: Annotated[
        bool, typer.Option("--continue", help="The last message begins an answer that is to be continued.")
    ] = False,
    thinking: Annotated[
        bool | None, typer.Option("--thinking/--no-thinking", help="Whether the model is to think before it answers.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Show the tokens that this model is sent.")] = None,
    text: Annotated[bool, typer.Option("--text", help="Write the prompt itself and nothing else.")] = False,
) -> None:
    """Show what a conversation becomes in a prompt template, structure apart from content.

    Only structure becomes special tokens. In a pipe, each part is a line: whose it is, and its text as JSON.
    """
    if name is None and model is None:
        return _list()
    conversation = _conversation(message or [], system, messages, go_on)
    options = {
        "input": input,
        "tools": () if tools is None else _json_list(tools, "--tools"),
        "add_generation_prompt": not no_generation_prompt,
        "continue_final_message": go_on,
        "thinking": thinking,
    }
    shown = _preview(name, model, conversation, options)
    if text:
        return _write(shown.text)
    _show_facts(shown.template)
    out().print(marked(shown.segments, colours=_colours()), soft_wrap=True)
    if shown.tokens:
        out().print()
        out().print(_token_table(shown.tokens))
    return None


def _preview(name: str | None, model: str | None, conversation: Any, options: dict[str, Any]) -> Preview:
    if model is None:
        from local_llms.templates import preview_template

        return preview_template(name or "", conversation, **options)
    from local_llms.models import load_model

    # The smallest there is: nothing is computed.
    with load_model(model, template=name, context_length=8, cache_tokens=8, max_parallel=1) as loaded:
        return loaded.preview(conversation, **options)


def _conversation(texts: Sequence[str], system: str | None, file: str | None, go_on: bool) -> list[Any]:
    from local_llms.templates import EXAMPLE
    from local_llms.types import Message

    if file is not None and (texts or system is not None):
        raise OptionError("Give the conversation either as words or as a file of messages, not as both.")
    if file is not None:
        return _json_list(file, "--messages")
    turns = [Message("assistant" if place % 2 else "user", said) for place, said in enumerate(texts)]
    # The example ends with a question; what can be continued ends with an answer.
    turns = turns or list(EXAMPLE[:2] if go_on else EXAMPLE)
    return turns if system is None else [Message("system", system), *turns]


def _json_list(file: str, option: str) -> list[Any]:
    name = "standard input" if file == "-" else file
    try:
        data = json.loads(sys.stdin.read() if file == "-" else Path(file).read_text("utf-8"))
    except OSError as error:
        raise OptionError(f"{option}: {file} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise OptionError(f"{option}: {name} is not JSON: {error}.") from None
    if not isinstance(data, list):
        raise OptionError(f"{option}: {name} must hold a list of {option.removeprefix('--')}.")
    return data


def _colours() -> bool:
    console = out()
    return console.is_terminal and not console.is_dumb_terminal


def _write(text: str) -> None:
    """Exactly the text into a pipe; to a terminal, what cannot harm it."""
    console = out()
    console.file.write(spoken(text) + "\n" if console.is_terminal else text)


def _show_facts(shown: Template) -> None:
    def markers(texts: Sequence[str]) -> str | None:
        return " ".join(map(quoted, texts)) or None

    err().print(
        pairs(
            [
                ("template", shown.name),
                ("from", shown.provenance or None),
                ("BOS token", quoted(shown.bos_token) if shown.bos_token else None),
                ("EOS token", quoted(shown.eos_token) if shown.eos_token else None),
                ("stop tokens", markers(shown.stop_tokens)),
                ("stop strings", markers(shown.stop)),
            ]
        ),
        style="dim",
    )


def _token_table(tokens: Sequence[PromptToken]) -> Any:
    from rich.table import Table
    from rich.text import Text

    from local_llms.cli.marked import STYLES

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("place", "id", "from", "text"):
        table.add_column(title, justify="right" if title in ("place", "id") else "left", overflow="fold")
    for place, token in enumerate(tokens):
        style = STYLES.get(token.origin, "")
        table.add_row(str(place), str(token.id), Text(token.origin, style), Text(_said(token.says), style))
    return table


def _said(says: bytes) -> str:
    """As text, or as bytes in base 16 where they are no whole characters."""
    try:
        return quoted(says.decode())
    except UnicodeDecodeError:
        return says.hex(" ")


def _list() -> None:
    from local_llms.catalog import families
    from local_llms.templates import places

    rows = []
    for family in families().values():
        for each in family.templates:
            found = places(each.name)
            names = {"turns": found.turns, "system": found.system, "input": found.input, "tools": found.tools}
            rows.append(
                {
                    "template": each.name + (" *" if each.name == family.default_template else ""),
                    "family": family.name,
                    "has a place for": ", ".join(name for name, has in names.items() if has) or "one question",
                    "from": each.provenance,
                }
            )
    out().print(columns(rows, spare=("from",)))
    out().print("* what the family's classes use. local-llms template NAME shows an example.", style="dim")
