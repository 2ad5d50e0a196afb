"""The list of commands: complete, quick, and helpful about mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata

import pytest

from local_llms.cli.main import COMMANDS
from tests.unit.cli.conftest import Run

HEAVY = ("llama_cpp", "langchain_core", "llama_index", "numpy", "pydantic", "torch")


def test_help_lists_every_command(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name, function in COMMANDS.items():
        assert name in result.output
        assert (function.__doc__ or "").split(".")[0][:30] in result.output


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom local_llms.cli.program import main\nsys.argv = ['local-llms', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"found = [name for name in {HEAVY!r} if name in sys.modules]\nassert not found, found\n"
    )
    fastest = 10.0
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
        after = os.times()
        assert done.returncode == 0, done.stderr
        # Time of the processor, not of the wall: other processes do not count.
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        fastest = min(fastest, spent)
    assert fastest < 0.5


def test_version(run: Run) -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert metadata.version("local-llms") in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(run: Run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert (COMMANDS[name].__doc__ or "").split(".")[0][:40] in result.output


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("complte", "x"), "complete"),
        (("complete", "x", "--temprature", "1"), "--temperature"),
        (("complete", "x", "--max-tokens", "many"), "--max-tokens"),
        (("complete",), "prompt"),
        (("demo", "/no/such/folder"), "/no/such/folder"),
        (("bench", "--parallel", "0"), "--parallel"),
    ],
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...], hint: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert hint.lower() in result.output.lower()
    assert "Traceback" not in result.output


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    result = run()
    assert "complete" in result.output
