"""Files of the Hugging Face hub: fetched, verified, kept in the shared cache, and found again."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llms.errors import ChecksumMismatch, DownloadError, MissingDependency, ModelFileError, OfflineError
from local_llms.hub import cached_named, fetch, fetch_named, parse_hub_name
from local_llms.hub.hf_cache import hub_cache
from tests.unit.hub.fake_hub import COMMIT, FILE, REPOSITORY, TOKEN, FakeHub, model
from tests.unit.hub.hub_tests import get, running_hub, source
from tests.unit.hub.raw_gguf import U32, Raw, scalar
from tests.unit.hub.wheels import Card

NAME = f"hf:{REPOSITORY}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    yield from running_hub(monkeypatch)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blobs() -> list[str]:
    return sorted(entry.name for entry in hub_cache().glob("*/blobs/*"))


def test_a_file_is_fetched_once(hub: FakeHub) -> None:
    path = get()
    assert path.read_bytes() == hub.files[FILE]
    assert path == hub_cache() / "models--owls--owl-1b-GGUF" / "snapshots" / COMMIT / FILE
    assert get() == path
    assert (hub.heads, hub.transfers) == (1, 1)
    assert hub.sent == len(hub.files[FILE])
    assert blobs() == [digest(hub.files[FILE])]
    assert path.resolve().name == blobs()[0]


def test_other_tools_find_the_file(hub: FakeHub) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    path = get()
    found = hf_hub_download(REPOSITORY, FILE, cache_dir=hub_cache(), local_files_only=True)
    assert Path(found) == path
    info = scan_cache_dir(hub_cache())
    assert not info.warnings
    assert [repo.repo_id for repo in info.repos] == [REPOSITORY]


def test_a_file_of_another_tool_is_not_fetched_again(hub: FakeHub) -> None:
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(REPOSITORY, FILE, cache_dir=hub_cache(), endpoint=hub.url)
    heads, transfers = hub.heads, hub.transfers
    assert str(get()) == path
    assert (hub.heads, hub.transfers) == (heads, transfers)


def test_progress_hears_of_it(hub: FakeHub) -> None:
    class Listener:
        heard: list[object] = []  # noqa: RUF012

        def start(self, name: str, total_bytes: int) -> None:
            self.heard += [name, total_bytes]

        def advance_to(self, done_bytes: int) -> None:
            self.heard.append(done_bytes)

        def finish(self) -> None:
            self.heard.append("finish")

    hub.faults.extend(["short", "no-range"])
    fetch(Card("owl", (source(),)), progress=Listener())
    name, total, *steps, end = Listener.heard
    assert (name, total, end) == (f"{NAME}:{FILE}", len(hub.files[FILE]), "finish")
    assert steps == sorted(steps)
    assert steps[-1] == total


def test_the_digest_of_the_catalog_is_compared_before_anything_is_fetched(hub: FakeHub) -> None:
    with pytest.raises(ChecksumMismatch, match="another file under the name"):
        get(sha256="0" * 64)
    with pytest.raises(ChecksumMismatch, match="another file under the name"):
        get(size=17)
    assert hub.transfers == 0
    content = hub.files[FILE]
    assert get(sha256=digest(content), size=len(content)).read_bytes() == content


def test_a_small_file_outside_lfs_is_verified_by_the_digest_of_git(hub: FakeHub) -> None:
    content = hub.files[FILE]
    hub.etags[FILE] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    assert get().read_bytes() == content
    hub.commit = "d" * 40
    hub.etags[FILE] = "1" * 40
    with pytest.raises(ChecksumMismatch, match="not the file that the hub promises"):
        fetch_named(parse_hub_name(f"{NAME}:{FILE}"), refresh=True)


@pytest.mark.parametrize("etag", ["../../../evil", "x" * 64, "0" * 63, "0" * 64 + "/..", "A" * 64])
def test_an_etag_that_is_no_digest_is_refused(hub: FakeHub, etag: str) -> None:
    hub.etags[FILE] = etag
    with pytest.raises(DownloadError, match="does not tell the commit, the digest and the size"):
        get()
    assert not hub_cache().exists()


@pytest.mark.parametrize("commit", ["../..", "main", "g" * 40])
def test_a_commit_that_is_none_is_refused(hub: FakeHub, commit: str) -> None:
    hub.commit = commit
    with pytest.raises(DownloadError, match="does not tell the commit"):
        get()
    assert not hub_cache().exists()


def test_a_file_that_is_no_sound_model_is_refused(hub: FakeHub) -> None:
    hub.files[FILE] = b"<!doctype html>" + bytes(5000)
    for _ in range(2):
        with pytest.raises(ModelFileError, match="web page"):
            get()


def test_a_changed_file_in_the_cache_is_fetched_again(hub: FakeHub) -> None:
    path = get()
    for bad in (hub.files[FILE][:-1] + b"\0", hub.files[FILE][:1000], b""):
        path.resolve().write_bytes(bad)
        assert get().read_bytes() == hub.files[FILE]
    assert hub.transfers == 4


def test_a_branch_moves_only_when_asked(hub: FakeHub) -> None:
    old = get()
    hub.files[FILE], hub.commit = model(seed=1), "d" * 40
    assert get() == old
    name = parse_hub_name(f"{NAME}:{FILE}")
    new = fetch_named(name, refresh=True)
    assert new != old
    assert new.read_bytes() == hub.files[FILE]
    assert get() == new
    assert len(blobs()) == 2


def test_a_new_commit_with_the_same_content_fetches_nothing(hub: FakeHub) -> None:
    get()
    hub.commit = "d" * 40
    path = fetch_named(parse_hub_name(f"{NAME}:{FILE}"), refresh=True)
    assert path.read_bytes() == hub.files[FILE]
    assert hub.transfers == 1


def test_a_commit_can_be_named(hub: FakeHub) -> None:
    path = get(revision=COMMIT)
    hub.commit = "d" * 40
    assert get(revision=COMMIT) == path
    assert hub.transfers == 1


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "LOCAL_LLMS_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(OfflineError, match=f"{variable} is set"):
        get()
    with pytest.raises(OfflineError, match=f"{variable} is set"):
        fetch_named(parse_hub_name(NAME))
    assert hub.authorized["hub"] == []
    monkeypatch.delenv(variable)
    path = get()
    monkeypatch.setenv(variable, "1")
    assert get() == path
    assert fetch_named(parse_hub_name(NAME), refresh=True) == path


@pytest.mark.parametrize("file", [FILE, None])
def test_a_damaged_file_without_a_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, file: str | None) -> None:
    name = parse_hub_name(NAME if file is None else f"{NAME}:{file}")
    path = fetch_named(name)
    path.resolve().write_bytes(path.read_bytes()[:1000])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OfflineError, match=r"HF_HUB_OFFLINE is set\. .* What is here under that name is damaged\."):
        fetch_named(name)
    path.unlink()
    with pytest.raises(OfflineError) as caught:
        fetch_named(name)
    assert "damaged" not in str(caught.value)


def test_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", "http://user:secret@127.0.0.1:9")
    with pytest.raises(OfflineError, match=r"http://127\.0\.0\.1:9 cannot be reached") as caught:
        get()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["huggingface.co", "file:///etc", "http:///", "ftp://127.0.0.1"])
def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(DownloadError, match="HF_ENDPOINT is"):
        get()


def test_without_the_library(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = get()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert get() == path
    assert fetch_named(parse_hub_name(NAME)) == path
    with pytest.raises(MissingDependency, match=r'huggingface_hub: pip install "local-llms\[hub\]"'):
        get("other.gguf")


def test_a_repository_with_one_model_needs_no_file(hub: FakeHub) -> None:
    hub.files |= {"README.md": b"#", "config.json": b"{}", "../evil.gguf": b"x", "big-00002-of-00002.gguf": b"x"}
    name = parse_hub_name(NAME)
    assert cached_named(name) is None
    assert fetch_named(name).read_bytes() == hub.files[FILE]
    assert cached_named(name) is not None


def test_a_repository_with_several_models_lists_them(hub: FakeHub) -> None:
    hub.files["owl-1b.Q8_0.gguf"] = b"x"
    with pytest.raises(DownloadError, match=rf"such as {NAME}:{FILE}\. It has {FILE}, owl-1b\.Q8_0\.gguf\."):
        fetch_named(parse_hub_name(NAME))


def test_a_repository_without_a_model_says_so(hub: FakeHub) -> None:
    hub.files = {"README.md": b"x", "model.onnx": b"x", "config.json": b"{}"}
    with pytest.raises(DownloadError, match="has no model that can be loaded: no GGUF file"):
        fetch_named(parse_hub_name(NAME))


def split_model(hub: FakeHub) -> list[str]:
    names = [f"parts/owl-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    hub.files = {}
    for number, name in enumerate(names):
        raw = Raw()
        raw.keys |= {"split.count": (U32, scalar(U32, 3)), "split.no": (U32, scalar(U32, number))}
        hub.files[name] = raw.write()
    return names


def test_all_parts_of_a_model_are_fetched(hub: FakeHub) -> None:
    names = split_model(hub)
    path = get(names[0])
    assert path.name == "owl-00001-of-00003.gguf"
    assert [entry.name for entry in sorted(path.parent.iterdir())] == [Path(name).name for name in names]
    assert hub.transfers == 3
    assert fetch_named(parse_hub_name(NAME)) == path
    path.with_name("owl-00002-of-00003.gguf").resolve().unlink()
    assert get(names[0]) == path
    assert hub.transfers == 4


@pytest.mark.parametrize(
    ("status", "code", "what"),
    [
        (401, "RepoNotFound", "There is no repository .* set HF_TOKEN"),
        (401, "", "There is no repository|HF_TOKEN"),
        (403, "GatedRepo", "accepted its terms"),
        (403, "", "answered 403 .* HF_TOKEN"),
        (404, "RevisionNotFound", "no such revision"),
        (404, "EntryNotFound", f"has no file {FILE}"),
        (418, "", "answered 418"),
        (429, "", "answered 429 .* wait"),
        (500, "", "answered 500 .* try again later"),
    ],
)
def test_refusals_say_what_to_do(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, status: int, code: str, what: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.refuse = (status, code)
    with pytest.raises(DownloadError, match=what) as caught:
        get()
    assert TOKEN not in str(caught.value)
    assert hub.transfers == 0


def test_the_token_goes_to_the_hub_and_nowhere_else(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    hub.token = TOKEN
    with pytest.raises(DownloadError, match="a private one set HF_TOKEN"):
        get()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    get()
    assert set(hub.authorized["hub"][1:]) == {f"Bearer {TOKEN}"}
    assert set(hub.authorized["cdn"]) == {None}
    out, err = capfd.readouterr()
    assert TOKEN not in caplog.text + out + err
    for folder, _, names in os.walk(hub_cache().parent):
        for name in names:
            assert TOKEN.encode() not in Path(folder, name).read_bytes()
