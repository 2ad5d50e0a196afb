"""Runs the command in this process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from local_llms.cli.main import app

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Run ``local-llms`` with arguments; ``input`` is standard input."""

    def call(*arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=input, env={"COLUMNS": "160"})

    return call


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(tmp_path_factory.mktemp("home")))
