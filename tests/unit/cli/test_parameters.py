"""The command's options are the library's."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from local_llms.cli.parameters import _LEFT_OUT, command
from local_llms.errors import EngineBusy, ModelNotFound
from local_llms.options import CallOptions, LoadingOptions

seen: dict[str, Any] = {}


def probe(name: str, loading: dict[str, Any], call: dict[str, Any], flag: bool = False) -> None:
    """Remember what was given."""
    seen.update(name=name, loading=loading, call=call, flag=flag)


def invoke(function: Any, *arguments: str) -> Any:
    app = typer.Typer()
    app.command()(command(function))
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def test_every_option_of_the_library_is_there() -> None:
    text = invoke(probe, "--help").output
    for name in {**LoadingOptions.model_fields, **CallOptions.model_fields}:
        shown = f"--{name.replace('_', '-')}"
        assert (shown in text) == (name not in _LEFT_OUT), shown
    assert "q8_0" in text
    assert "8192" in text


def test_what_is_left_out_exists() -> None:
    assert set(_LEFT_OUT) <= {*LoadingOptions.model_fields, *CallOptions.model_fields}


def test_values_arrive_by_the_librarys_names() -> None:
    result = invoke(
        probe, "x", "--context-length", "64", "--temperature", "0.5", "--stop", "a", "--stop", "b",
        "--template", "plain", "--seed", "0", "--flag",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert seen == {
        "name": "x",
        "loading": {"context_length": 64, "template": "plain"},
        "call": {"temperature": 0.5, "stop": ["a", "b"], "seed": 0},
        "flag": True,
    }
    LoadingOptions(**seen["loading"])
    CallOptions(**seen["call"])


def test_what_is_not_given_is_left_to_the_library() -> None:
    assert invoke(probe, "x").exit_code == 0
    assert seen["loading"] == {}
    assert seen["call"] == {}


@pytest.mark.parametrize(
    "error", [ModelNotFound("model", "smol", ["smollm2"]), EngineBusy("line one\n\x1b[31mline two")]
)
def test_an_error_is_one_line(error: Exception) -> None:
    def fail(name: str) -> None:
        raise error

    result = invoke(fail, "x")
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert "\x1b" not in result.stderr


def test_a_bug_is_not_hidden() -> None:
    def fail(name: str) -> None:
        raise KeyError("bug")

    assert isinstance(invoke(fail, "x").exception, KeyError)


def test_an_interrupt_ends_with_130() -> None:
    def fail(name: str) -> None:
        raise KeyboardInterrupt

    result = invoke(fail, "x")
    assert result.exit_code == 130
    assert "Traceback" not in result.output
