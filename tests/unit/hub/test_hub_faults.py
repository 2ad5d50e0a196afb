"""A hub that lies, stalls and breaks off: what arrives is right, or nothing counts."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llms.errors import ChecksumMismatch, DownloadError
from local_llms.hub import hf_transfer
from local_llms.hub.hf_cache import Repository, hub_cache
from tests.unit.hub.fake_hub import FILE, REPOSITORY, FakeHub, model
from tests.unit.hub.hub_tests import get, impatient, running_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    yield from running_hub(monkeypatch)


def partial(hub: FakeHub) -> Path:
    return Repository.of(REPOSITORY).partial(hub.etag(FILE))


def leave(hub: FakeHub, content: bytes) -> None:
    """Leave what a killed fetch would have left."""
    path = partial(hub)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


def nothing_counts(hub: FakeHub) -> bool:
    folder = Repository.of(REPOSITORY).folder
    return not (folder / "blobs" / hub.etag(FILE)).exists() and not [*folder.glob("snapshots/*/*")]


@pytest.mark.parametrize("fault", ["short", "less", "stall"])
def test_a_broken_transfer_goes_on_where_it_stopped(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    if fault == "stall":
        impatient(monkeypatch)
    hub.faults.append(fault)
    content = hub.files[FILE]
    assert get().read_bytes() == content
    first, second = hub.ranges
    assert first is None
    assert second == f"bytes={len(content) // 2}-"
    assert hub.sent == len(content)


@pytest.mark.parametrize("status", ["408", "429", "500", "502", "503"])
def test_a_passing_fault_of_the_hub_is_waited_out(hub: FakeHub, status: str) -> None:
    hub.faults.extend([status, "short", status])
    assert get().read_bytes() == hub.files[FILE]


@pytest.mark.parametrize("fault", ["no-range", "from-start"])
def test_a_range_that_is_ignored(hub: FakeHub, fault: str) -> None:
    hub.faults.extend(["short", fault])
    assert get().read_bytes() == hub.files[FILE]


def test_a_later_fetch_goes_on_where_an_earlier_one_stopped(hub: FakeHub) -> None:
    content = hub.files[FILE]
    leave(hub, content[:70_000])
    assert get().read_bytes() == content
    assert hub.ranges == ["bytes=70000-"]
    assert not partial(hub).exists()


def test_all_that_is_missing_is_the_name(hub: FakeHub) -> None:
    leave(hub, hub.files[FILE])
    assert get().read_bytes() == hub.files[FILE]
    assert hub.transfers == 0


@pytest.mark.parametrize("left", [b"x" * 70_000, b"x" * 1_000_000])
def test_wrong_bytes_from_before_are_thrown_away(hub: FakeHub, left: bytes) -> None:
    leave(hub, left)
    assert get().read_bytes() == hub.files[FILE]
    assert hub.ranges[-1] is None


def test_wrong_bytes_of_the_right_size(hub: FakeHub) -> None:
    leave(hub, bytes(len(hub.files[FILE])))
    assert get().read_bytes() == hub.files[FILE]


@pytest.mark.parametrize(
    ("faults", "what"),
    [
        (["wrong-bytes"], "not the file that the hub promises"),
        (["short", "wrong-bytes"], "not the file that the hub promises"),
        (["more"], "More than the"),
    ],
)
def test_other_bytes_are_not_kept(hub: FakeHub, faults: list[str], what: str) -> None:
    hub.faults.extend(faults)
    with pytest.raises(ChecksumMismatch, match=what) as caught:
        get()
    assert caught.value.retryable
    assert nothing_counts(hub)
    assert not partial(hub).exists() or partial(hub).stat().st_size == 0
    assert get().read_bytes() == hub.files[FILE]


def test_a_hub_that_tells_a_wrong_size(hub: FakeHub) -> None:
    hub.sizes[FILE] = len(hub.files[FILE]) + 100
    with pytest.raises(DownloadError, match=f"answered 416|only {len(hub.files[FILE])} of"):
        get()
    assert nothing_counts(hub)
    assert hub.transfers <= 4
    hub.sizes[FILE] = 1000
    with pytest.raises(ChecksumMismatch, match="More than the 1000 bytes"):
        get()
    assert nothing_counts(hub)


@pytest.mark.parametrize("fault", ["short", "stall", "503"])
def test_a_hub_that_never_gets_better(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(hf_transfer, "TRIES", 2)
    if fault == "stall":
        impatient(monkeypatch)
    content = hub.files[FILE]
    hub.faults.extend([fault, "503", "503", "503"])
    with pytest.raises(DownloadError, match=r"answered 503 .* What has arrived is kept"):
        get()
    assert nothing_counts(hub)
    hub.faults.clear()
    assert get().read_bytes() == content
    assert hub.sent == len(content)


def test_a_status_that_waiting_does_not_help_ends_it(hub: FakeHub) -> None:
    hub.faults.append("404")
    with pytest.raises(DownloadError, match="answered 404"):
        get()
    assert hub.transfers == 1


def test_the_file_changes_while_it_is_fetched(hub: FakeHub) -> None:
    """What comes is then neither the old file nor the new one."""
    old = hub.files[FILE]
    leave(hub, old[:50_000])
    etag = hub.etag(FILE)
    hub.etags[FILE] = etag
    hub.files[FILE] = model(seed=7)
    with pytest.raises(ChecksumMismatch):
        get()
    assert nothing_counts(hub)
    del hub.etags[FILE]
    assert get().read_bytes() == hub.files[FILE]


def test_what_was_left_of_another_version_is_not_taken(hub: FakeHub) -> None:
    leave(hub, hub.files[FILE][:50_000])
    hub.files[FILE] = model(seed=7)
    assert get().read_bytes() == hub.files[FILE]
    assert hub.ranges == [None]


def test_too_small_a_disk_is_noticed_before_the_download(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1_000))
    with pytest.raises(DownloadError, match=r"MB are needed for it, and 0 MB are free\. Make room, or set HF_HOME"):
        get()
    assert hub.transfers == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_meanwhile(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DownloadError, match=f"no room .*{os.strerror(number)}. Make room, or set HF_HOME"):
            get()
    assert nothing_counts(hub)
    assert get().read_bytes() == hub.files[FILE]
    assert hub.transfers == 1


def test_a_disk_that_is_full_while_writing(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object, block: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(hf_transfer, "_write", full)
        with pytest.raises(DownloadError, match="No space left on device"):
            get()
    assert nothing_counts(hub)
    assert hub.transfers == 1


def test_a_cache_that_cannot_be_written(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match=r"cannot be kept .* set HF_HOME"):
        get()


def test_a_system_without_links(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(self: Path, target: object, target_is_directory: bool = False) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    path = get()
    assert not path.is_symlink()
    assert path.read_bytes() == hub.files[FILE]
    assert get() == path
    assert hub.transfers == 1
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert get().read_bytes() == hub.files[FILE]
    assert hub.transfers == 2


def test_threads_fetch_once(hub: FakeHub) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(get())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(found)) == 1
    assert len(found) == 6
    assert hub.transfers == 1


def test_an_interrupt_keeps_what_arrived(hub: FakeHub) -> None:
    from local_llms.hub import fetch
    from tests.unit.hub.hub_tests import source
    from tests.unit.hub.wheels import Card

    class Interrupting:
        def start(self, name: str, total_bytes: int) -> None:
            self.finished = False

        def advance_to(self, done_bytes: int) -> None:
            if done_bytes > 100_000:
                raise KeyboardInterrupt

        def finish(self) -> None:
            self.finished = True

    progress = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        fetch(Card("owl", (source(),)), progress=progress)
    assert progress.finished
    assert nothing_counts(hub)
    assert partial(hub).stat().st_size > 100_000
    assert get().read_bytes() == hub.files[FILE]
    assert hub.ranges[1] is not None
    assert hub_cache().is_dir()
