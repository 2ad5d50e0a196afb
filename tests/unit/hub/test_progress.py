"""A bar is shown on a terminal, and nowhere else."""

from __future__ import annotations

import io
import sys

import pytest

from local_llms.hub.progress import ProgressBar, Silent, default_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    bar = default_progress()
    assert isinstance(bar, ProgressBar)
    bar.start("owl-1b", 2_000_000)
    bar.advance_to(1_000_000)
    bar.finish()
    assert "Fetching owl-1b" in terminal.getvalue()
    assert "1.0/2.0 MB" in terminal.getvalue()
    bar.advance_to(2_000_000)
    bar.finish()


@pytest.mark.parametrize("stream", [io.StringIO(), None])
def test_anything_else_gets_none(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    silent = default_progress()
    assert isinstance(silent, Silent)
    silent.start("owl-1b", 1)
    silent.advance_to(1)
    silent.finish()
    assert stream is None or stream.getvalue() == ""
