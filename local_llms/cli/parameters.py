"""From the library's options to the command's: declared once, in ``options.py``.

A command that has a parameter named ``loading`` or ``call`` gets one option on the command line for each field of
``LoadingOptions`` or ``CallOptions``, and receives a dictionary of those that were given. The library checks the
values.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from local_llms.cli.console import err, show_error
from local_llms.errors import LocalLLMError
from local_llms.options import CallOptions, LoadingOptions

_LEFT_OUT = {
    "logit_bias": "a mapping is no value for a command line",
    "idle_unload": "a command ends when it has nothing to do",
}
_SHORT = {"temperature": "-t", "max_tokens": "-n", "context_length": "-c"}


def command(function: Callable[..., None]) -> Callable[..., None]:
    """What typer is given for ``function``: with the library's options, and with our errors as one line."""
    signature = inspect.signature(function, eval_str=True)
    groups = {name: _options(name) for name in ("loading", "call") if name in signature.parameters}
    # A name that both groups have, such as template, is a loading option.
    for name in groups.get("loading", {}):
        groups.get("call", {}).pop(name, None)

    @functools.wraps(function)
    def run(**given: Any) -> None:
        for group, options in groups.items():
            values = {name: given.pop(name) for name in options}
            given[group] = {name: value for name, value in values.items() if value is not None and value != []}
        try:
            function(**given)
        except LocalLLMError as error:
            show_error(error)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            err().print("Stopped.")
            raise typer.Exit(130) from None

    own = [parameter for name, parameter in signature.parameters.items() if name not in groups]
    library = [parameter for options in groups.values() for parameter in options.values()]
    run.__signature__ = signature.replace(parameters=_keyword_only(own + library))  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in own + library}
    return run


def _keyword_only(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]


def _options(group: str) -> dict[str, inspect.Parameter]:
    kind, panel = (LoadingOptions, "Loading") if group == "loading" else (CallOptions, "Sampling")
    return {
        name: inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=_annotation(name, field, panel),
        )
        for name, field in kind.model_fields.items()
        if name not in _LEFT_OUT
    }


def _annotation(name: str, field: FieldInfo, panel: str) -> Any:
    dashed = name.replace("_", "-")
    names = [f"--{dashed}/--no-{dashed}" if _type(field.annotation) == bool | None else f"--{dashed}"]
    if name in _SHORT:
        names.append(_SHORT[name])
    option = typer.Option(*names, help=_help(field), rich_help_panel=panel, show_default=False)
    return Annotated[_type(field.annotation), option]


def _help(field: FieldInfo) -> str:
    choices = [text for part in _parts(field.annotation) if get_origin(part) is Literal for text in get_args(part)]
    sentences = [field.description or ""]
    if choices:
        sentences.append(f"One of {', '.join(choices)}.")
    if field.default is not None:
        sentences.append(f"Default: {field.default}.")
    return " ".join(sentences).strip()


def _type(annotation: Any) -> Any:
    """What typer parses for a field: the library checks choices and ranges itself, with its own sentences."""
    for part in _parts(annotation):
        if part in (int, float, bool):
            return part | None
        if get_origin(part) is list:
            return list[str] | None
    return str | None


def _parts(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Literal, list, dict):
        return (annotation,)
    return get_args(annotation) or (annotation,)
