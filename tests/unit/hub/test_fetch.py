"""A model's file is looked for in the cache and in installed packages, then fetched; what is wrong never counts."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from local_llms.errors import ChecksumMismatch, DownloadError, ModelFileError, OfflineError
from local_llms.hub import cache, fetch
from local_llms.hub.source import FileSource
from local_llms.paths import cache_dir
from tests.unit.hub.conftest import FakePip, Offer, left_in_cache
from tests.unit.hub.wheels import CONTENT, MEMBER, Card, card, make_wheel

GOOD = ["owl.gguf", "owl.gguf.verified.json"]


class Listener:
    """Hears about a download."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def start(self, name: str, total_bytes: int) -> None:
        self.heard.append((name, total_bytes))

    def advance_to(self, done_bytes: int) -> None:
        self.heard.append(done_bytes)

    def finish(self) -> None:
        self.heard.append("finish")


def test_the_file_comes_once(offer: Offer, pip: FakePip) -> None:
    offer()
    path = fetch(card())
    assert path == cache_dir() / "models" / "owl-1b" / "owl.gguf"
    assert path.read_bytes() == CONTENT
    assert left_in_cache() == GOOD
    assert fetch(card()) == path
    assert pip.runs == 1


def test_progress_is_heard(pip: FakePip, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {MEMBER: CONTENT})
    pip.program = f"""
import sys, time, os
data = open({str(wheel)!r}, "rb").read()
with open(os.environ["TMPDIR"] + "/temporary", "wb") as file:
    for start, end in ((0, 1000), (1000, len(data))):
        file.write(data[start:end]); file.flush()
        while not os.path.exists(f"{tmp_path}/heard {{end}}"):
            time.sleep(0.01)
os.rename(file.name, sys.argv[1] + "/{wheel.name}")
"""

    class Telling(Listener):
        def advance_to(self, done_bytes: int) -> None:
            super().advance_to(done_bytes)
            (tmp_path / f"heard {done_bytes}").touch()

    listener = Telling()
    fetch(card(wheel_size=wheel.stat().st_size), progress=listener)
    start, *done, end = listener.heard
    assert (start, end) == (("owl-1b", wheel.stat().st_size), "finish")
    assert done == sorted(done)
    assert {1000, wheel.stat().st_size} <= set(done)


def test_progress_ends_when_the_download_fails(pip: FakePip) -> None:
    pip.says("ERROR: no")
    listener = Listener()
    with pytest.raises(DownloadError):
        fetch(card(), progress=listener)
    assert listener.heard[-1] == "finish"


def test_nothing_is_shown_where_there_is_no_terminal(offer: Offer, capfd: pytest.CaptureFixture[str]) -> None:
    offer()
    fetch(card())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (CONTENT[:-1] + b"x", "the SHA-256"),
        (CONTENT[:-1], f"{len(CONTENT) - 1} bytes instead of {len(CONTENT)}"),
        (CONTENT + b"x", f"more than {len(CONTENT)} bytes"),
        (bytes(50_000_000), f"more than {len(CONTENT)} bytes"),
    ],
    ids=["other", "short", "long", "bomb"],
)
def test_other_bytes_are_not_kept(offer: Offer, content: bytes, what: str) -> None:
    offer({MEMBER: content})
    with pytest.raises(ChecksumMismatch, match=what) as caught:
        fetch(card())
    assert caught.value.retryable
    assert left_in_cache() == []
    offer()
    assert fetch(card()).read_bytes() == CONTENT


def test_a_damaged_wheel_is_not_kept(offer: Offer) -> None:
    wheel = offer()
    data = bytearray(wheel.read_bytes())
    data[60] ^= 0xFF
    wheel.write_bytes(data)
    with pytest.raises(ChecksumMismatch, match="damaged"):
        fetch(card())
    assert left_in_cache() == []


def test_a_truncated_wheel_is_not_kept(offer: Offer) -> None:
    wheel = offer()
    wheel.write_bytes(wheel.read_bytes()[:-100])
    with pytest.raises(ChecksumMismatch, match="damaged"):
        fetch(card())
    assert left_in_cache() == []


def test_a_wheel_without_the_file_says_so(offer: Offer) -> None:
    offer({"owl_weights/other.gguf": CONTENT})
    with pytest.raises(DownloadError, match=r"holds no file owl_weights/owl\.gguf"):
        fetch(card())
    assert left_in_cache() == []


def test_an_encrypted_wheel_is_refused(offer: Offer) -> None:
    wheel = offer()
    data = bytearray(wheel.read_bytes())
    with zipfile.ZipFile(wheel) as archive:
        start = archive.start_dir
    data[start + 8] |= 1
    wheel.write_bytes(data)
    with pytest.raises(ChecksumMismatch, match="damaged"):
        fetch(card())


def test_pip_that_brings_nothing_is_an_error(pip: FakePip) -> None:
    pip.program = ""
    with pytest.raises(DownloadError, match="left 0 wheels"):
        fetch(card())


def test_a_changed_file_is_fetched_again(offer: Offer, pip: FakePip) -> None:
    offer()
    path = fetch(card())
    for bad in (CONTENT[:-1] + b"x", CONTENT[:100], b""):
        path.write_bytes(bad)
        assert fetch(card()).read_bytes() == CONTENT
    assert pip.runs == 4


def test_a_file_that_was_only_touched_is_kept(offer: Offer, pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    offer()
    path = fetch(card())
    os.utime(path, ns=(1, 1))
    assert fetch(card()) == path
    assert pip.runs == 1
    monkeypatch.setattr(cache, "digest", None)
    assert fetch(card()) == path


@pytest.mark.parametrize("record", [None, "", "[]", "{}", '{"size": "x", "mtime_ns": 1, "sha256": "", "origin": ""}'])
def test_without_a_sound_record_the_file_is_hashed(offer: Offer, pip: FakePip, record: str | None) -> None:
    offer()
    path = fetch(card())
    place = path.with_name("owl.gguf.verified.json")
    place.unlink() if record is None else place.write_text(record, "utf-8")
    assert fetch(card()) == path
    assert left_in_cache() == GOOD
    assert pip.runs == 1


def test_a_record_of_other_bytes_is_not_believed(offer: Offer, pip: FakePip) -> None:
    offer()
    path = fetch(card())
    place = path.with_name("owl.gguf.verified.json")
    path.write_bytes(CONTENT[:-1] + b"x")
    stat = path.stat()
    record = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": "0" * 64}
    place.write_text(json.dumps({**json.loads(place.read_text("utf-8")), **record}), "utf-8")
    assert fetch(card()).read_bytes() == CONTENT
    assert pip.runs == 2


def test_a_new_digest_in_the_catalog_means_a_new_file(offer: Offer) -> None:
    offer()
    fetch(card())
    newer = CONTENT + b"newer"
    offer({MEMBER: newer})
    assert fetch(card(newer)).read_bytes() == newer


def test_what_a_killed_fetch_left_is_swept_away(offer: Offer) -> None:
    folder = cache_dir() / "models" / "owl-1b"
    (folder / ".partial-abc").mkdir(parents=True)
    (folder / ".partial-abc" / "owl.gguf").write_bytes(CONTENT)
    (folder / ".partial-owl.gguf.verified.json.17").write_bytes(b"{")
    offer()
    fetch(card())
    assert left_in_cache() == GOOD


def test_an_interrupt_leaves_nothing_and_no_process(pip: FakePip) -> None:
    pip.program = "import os, time; open(os.environ['TMPDIR'] + '/pid', 'w').write(str(os.getpid())); time.sleep(60)"

    class Interrupting(Listener):
        pid = 0

        def advance_to(self, done_bytes: int) -> None:
            (written,) = [*(cache_dir() / "models" / "owl-1b").glob(".partial-*/scratch/pid")] or [None]
            if written is not None and (text := written.read_text()):
                self.pid = int(text)
                raise KeyboardInterrupt

    interrupting = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        fetch(card(), progress=interrupting)
    assert left_in_cache() == []
    with pytest.raises(ProcessLookupError):
        os.kill(interrupting.pid, 0)


def test_offline_with_a_full_cache_needs_no_pip(offer: Offer, pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_LLMS_OFFLINE", "1")
    offer()
    with pytest.raises(OfflineError, match="LOCAL_LLMS_OFFLINE is set"):
        fetch(card())
    assert pip.runs == 0
    monkeypatch.setenv("LOCAL_LLMS_OFFLINE", "0")
    path = fetch(card())
    monkeypatch.setenv("LOCAL_LLMS_OFFLINE", "1")
    assert fetch(card()) == path


def test_too_small_a_disk_is_noticed_before_the_download(pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1_000))
    with pytest.raises(DownloadError, match=r"0 MB are needed for it, and 0 MB are free\. Make room"):
        fetch(card())
    assert pip.runs == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_meanwhile(offer: Offer, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    offer()

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DownloadError, match=f"{os.strerror(number)}. Make room"):
            fetch(card())
    assert left_in_cache() == []
    assert fetch(card()).read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written(pip: FakePip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match=r"cannot be kept .*set LOCAL_LLMS_HOME"):
        fetch(card())


def install(wheel: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Unpack a wheel as pip would into a folder of installed packages; returns the model file."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    return folder / MEMBER


def test_an_installed_package_is_used(pip: FakePip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = install(make_wheel(tmp_path, {MEMBER: CONTENT}), tmp_path / "site", monkeypatch)
    assert fetch(card()) == installed
    assert pip.runs == 0
    assert left_in_cache() == ["installed.verified.json"]
    monkeypatch.setattr(cache, "digest", None)
    assert fetch(card()) == installed


def test_the_cache_goes_before_an_installed_package(
    offer: Offer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cached = fetch(card()) if offer() else None
    install(make_wheel(tmp_path, {MEMBER: CONTENT}), tmp_path / "site", monkeypatch)
    assert fetch(card()) == cached


@pytest.mark.parametrize("bad", [CONTENT[:-1] + b"x", CONTENT[:50]])
def test_an_altered_installed_file_is_not_used(
    offer: Offer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bad: bytes
) -> None:
    installed = install(offer(), tmp_path / "site", monkeypatch)
    assert fetch(card()) == installed
    installed.write_bytes(bad)
    path = fetch(card())
    assert path != installed
    assert path.read_bytes() == CONTENT


def test_an_uninstalled_package_is_fetched(offer: Offer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = install(offer(), tmp_path / "site", monkeypatch)
    fetch(card())
    shutil.rmtree(tmp_path / "site")
    path = fetch(card())
    assert path != installed
    assert path.read_bytes() == CONTENT


def test_an_unwritable_cache_still_serves_an_installed_package(
    pip: FakePip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = install(make_wheel(tmp_path, {MEMBER: CONTENT}), tmp_path / "site", monkeypatch)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(tmp_path / "file"))
    assert fetch(card()) == installed


def test_a_file_of_the_users_own_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    own = Card("own", (FileSource(kind="file", path=path),))
    with pytest.raises(ModelFileError, match=r"no such file\. Put it there"):
        fetch(own)
    path.write_bytes(b"anything")
    assert fetch(own) == path


def test_the_next_source_is_tried(offer: Offer, pip: FakePip, tmp_path: Path) -> None:
    offer()
    missing = FileSource(kind="file", path=tmp_path / "missing.gguf")
    both = Card("owl-1b", (missing, *card().sources))
    assert fetch(both).read_bytes() == CONTENT
    pip.says("ERROR: no")
    with pytest.raises(ModelFileError, match=r"missing\.gguf"):
        fetch(Card("owl-2b", (missing, *card().sources)))


def test_a_cached_file_is_found_in_a_moment(offer: Offer) -> None:
    offer()
    fetch(card())
    best = 1.0
    for _ in range(20):
        start = time.perf_counter()
        fetch(card())
        best = min(best, time.perf_counter() - start)
    assert best < 0.005


def test_the_record_is_there_before_the_file(offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends between the two leaves no file without a record; a converted file could not be told good."""
    offer()
    replace = os.replace

    def die_at_the_last_step(source: str, target: Path) -> None:
        if target.name == "owl.gguf":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die_at_the_last_step)
        with pytest.raises(KeyboardInterrupt):
            fetch(card())
    assert left_in_cache() == ["owl.gguf.verified.json"]
    assert fetch(card()).read_bytes() == CONTENT
