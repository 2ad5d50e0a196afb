"""Where files are kept."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from local_llms.paths import cache_dir, config_dir, home


def test_one_variable_moves_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(tmp_path))
    assert (home(), cache_dir(), config_dir()) == (tmp_path, tmp_path / "cache", tmp_path / "config")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [None, ""])
def test_without_it_the_platforms_folders_are_used(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("LOCAL_LLMS_HOME") if value is None else monkeypatch.setenv("LOCAL_LLMS_HOME", value)
    assert home() is None
    assert cache_dir() == platformdirs.user_cache_path("local_llms", appauthor=False)
    assert config_dir() == platformdirs.user_config_path("local_llms", appauthor=False)


def test_the_folder_may_be_relative_or_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("llms", "~/llms"):
        monkeypatch.setenv("LOCAL_LLMS_HOME", value)
        assert home() == tmp_path / "llms"
