"""For all tests: a home of their own, so that nobody's models and families are touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``LOCAL_LLMS_HOME`` for the whole run: $LOCAL_LLMS_TEST_HOME, which keeps fetched models, or a new folder."""
    kept = os.environ.get("LOCAL_LLMS_TEST_HOME")
    folder = Path(kept).expanduser().absolute() if kept else tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_LLMS_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of test data outside the project; skips where it is absent."""
    folder = Path(os.environ.get("LOCAL_LLMS_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"the test data is absent: {folder} (LOCAL_LLMS_TEST_DATA names another folder)")
    return folder
