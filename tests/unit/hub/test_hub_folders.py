"""Models of the hub that are folders: only what a model needs is fetched, and all of it or nothing counts."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llms.errors import ChecksumMismatch, DownloadError, ModelFileError, OfflineError
from local_llms.hub import cached_named, fetch_named, kept_models, parse_hub_name
from local_llms.hub.hf_ask import ask_listing
from local_llms.hub.hf_cache import Repository, hub_cache
from local_llms.kept import find_kept, remove, remove_unfinished
from tests.unit.hub.fake_hub import COMMIT, REPOSITORY, FakeHub
from tests.unit.hub.hub_tests import impatient, running_hub
from tests.unit.hub.test_hub_cache import FLIPS, flip_a_bit

NAME = parse_hub_name(f"hf:{REPOSITORY}")
SHARDS = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
INDEX = "model.safetensors.index.json"
NEEDED = {
    "config.json": b'{"model_type": "llama"}',
    "generation_config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b"{}",
    "special_tokens_map.json": b"{}",
    "tokenizer.model": b"pieces" * 100,
}
OTHERS = {
    "README.md": b"# Owl",
    "LICENSE": b"do as you please",
    "modeling_owl.py": b"import os",
    "tokenization_owl.py": b"import os",
    "pytorch_model.bin": b"pickle" * 1000,
    "pytorch_model-00001-of-00002.bin": b"pickle" * 1000,
    "tf_model.h5": b"tf" * 1000,
    "onnx/model.onnx": b"onnx" * 1000,
    "original/consolidated.00.pth": b"pth" * 1000,
    "runs/events.out": b"log",
    "../../evil.json": b"{}",
    "../tokenizer.json": b"{}",
    ".hidden/config.json": b"{}",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for hub in running_hub(monkeypatch):
        hub.files = {}
        yield hub


def put(hub: FakeHub, files: dict[str, bytes]) -> dict[str, bytes]:
    """Add files as the hub keeps them: large ones by SHA-256, small ones as git does."""
    hub.files |= files
    for name, content in files.items():
        if len(content) < 1000:
            hub.etags[name] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return files


def sharded(seed: bytes = b"") -> dict[str, bytes]:
    weights = {f"layer.{number}": shard for number, shard in enumerate(SHARDS)}
    index = {"metadata": {"total_size": 1}, "weight_map": weights}
    return {INDEX: json.dumps(index).encode(), **{name: (seed + name.encode()) * 4000 for name in SHARDS}}


def contents(files: dict[str, bytes]) -> set[bytes]:
    """What has to be fetched: a content that has several names comes once."""
    return set(files.values())


def held(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_only_what_the_model_needs_is_fetched(hub: FakeHub) -> None:
    needed = put(hub, {**NEEDED, **sharded()})
    put(hub, OTHERS)
    path = fetch_named(NAME)
    assert path == hub_cache() / "models--owls--owl-1b-GGUF" / "snapshots" / COMMIT
    assert held(path) == needed
    assert hub.transfers == len(contents(needed)) < len(needed)
    assert hub.sent == sum(map(len, contents(needed)))


def test_a_second_use_asks_nothing(hub: FakeHub) -> None:
    put(hub, {**NEEDED, **sharded()})
    path = fetch_named(NAME)
    asked = (hub.heads, hub.listings, hub.transfers)
    assert asked[:2] == (1, 1)
    assert fetch_named(NAME) == path
    assert cached_named(NAME) == path
    assert (hub.heads, hub.listings, hub.transfers) == asked


def test_one_file_of_weights_goes_before_shards_and_pickles(hub: FakeHub) -> None:
    needed = put(hub, {**NEEDED, "model.safetensors": b"whole" * 1000})
    put(hub, {**sharded(), **OTHERS})
    assert held(fetch_named(NAME)) == needed


def test_pickles_are_taken_where_there_are_no_safetensors(hub: FakeHub) -> None:
    index = {"weight_map": {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}}
    shards = {name: name.encode() * 100 for name in index["weight_map"].values()}
    needed = put(hub, {"config.json": b"{}", "pytorch_model.bin.index.json": json.dumps(index).encode(), **shards})
    put(hub, {"ice_text.model": b"pieces", "configuration.py": b"import os"})
    assert held(fetch_named(NAME)) == needed | {"ice_text.model": b"pieces"}


def test_an_adapter(hub: FakeHub) -> None:
    needed = put(
        hub, {"adapter_config.json": b"{}", "adapter_model.safetensors": b"lora" * 500, "added_tokens.json": b"{}"}
    )
    put(hub, {"adapter_model.bin": b"pickle", "optimizer.pt": b"x", "checkpoint-100/adapter_model.bin": b"x"})
    assert held(fetch_named(NAME)) == needed
    assert [(kept.name, kept.path) for kept in kept_models()] == [(str(NAME), cached_named(NAME))]


def test_a_model_and_an_adapter_in_one_repository(hub: FakeHub) -> None:
    model = put(hub, {"config.json": b"{}", "model.safetensors": b"model" * 500})
    adapter = put(hub, {"adapter_config.json": b"{}", "adapter_model.safetensors": b"lora" * 500})
    assert held(fetch_named(NAME, want="adapter")) == adapter
    assert held(fetch_named(NAME)) == adapter | model


@pytest.mark.parametrize("config", [True, False])
def test_a_prefix_of_p_tuning(hub: FakeHub, config: bool) -> None:
    """Its files are called as a model's; of the tokenizer, which is the base's, nothing is needed."""
    needed = put(hub, {"pytorch_model.bin": b"prefix" * 500, **({"config.json": b"{}"} if config else {})})
    put(
        hub, {"ice_text.model": b"pieces", "trainer_state.json": b"{}", "training_args.bin": b"x", "optimizer.pt": b"x"}
    )
    path = fetch_named(NAME, want="adapter")
    assert held(path) == needed
    assert cached_named(NAME, want="adapter") == path


def test_the_only_weights_of_a_repository(hub: FakeHub) -> None:
    put(hub, {"RWKV-x070-World-0.1B.pth": b"state" * 500, "README.md": b"#", "training_args.bin": b"x"})
    path = fetch_named(NAME)
    assert (path.name, path.read_bytes()) == ("RWKV-x070-World-0.1B.pth", b"state" * 500)
    assert [kept.name for kept in kept_models()] == [f"{NAME}:RWKV-x070-World-0.1B.pth"]
    put(hub, {"RWKV-x070-World-0.4B.pth": b"state" * 600})
    with pytest.raises(DownloadError, match=rf"such as {NAME}:RWKV-x070-World-0\.1B\.pth\. It has"):
        fetch_named(NAME, refresh=True)
    chosen = fetch_named(parse_hub_name(f"{NAME}:RWKV-x070-World-0.4B.pth"))
    assert chosen.read_bytes() == b"state" * 600


def test_a_checkpoint_of_litgpt(hub: FakeHub) -> None:
    needed = put(hub, {"lit_model.pth": b"lit" * 500, "model_config.yaml": b"name: owl", "tokenizer.model": b"pieces"})
    put(hub, {"hyperparameters.yaml": b"a: 1", "README.md": b"#"})
    assert held(fetch_named(NAME)) == needed


def test_several_gguf_files_beside_a_folder_are_named_by_their_names(hub: FakeHub) -> None:
    needed = put(hub, {"config.json": b"{}", "model.safetensors": b"model" * 500})
    put(hub, {"owl.Q4_0.gguf": b"x", "owl.Q8_0.gguf": b"x"})
    assert held(fetch_named(NAME)) == needed


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        ({"a": "model-00009-of-00009.safetensors"}, "there is no such file"),
        ({"a": "../../../etc/passwd"}, "is no index of weights"),
        ({"a": "/etc/passwd"}, "is no index of weights"),
        ({"a": 7}, "is no index of weights"),
        ({"a": "modeling_owl.py"}, "can hold no weights"),
        ({}, "names no file"),
        ("text", "is no index of weights"),
        (None, "is no index of weights"),
    ],
)
def test_an_index_that_is_wrong(hub: FakeHub, weights: object, what: str) -> None:
    put(hub, {"config.json": b"{}", INDEX: json.dumps({"weight_map": weights}).encode(), "modeling_owl.py": b"x"})
    with pytest.raises(ModelFileError, match=what):
        fetch_named(NAME)
    assert not [*hub_cache().glob("*/snapshots/*/*")]


@pytest.mark.parametrize("text", [b"[]", b"nonsense", b"[" * 100_000])
def test_an_index_that_is_none(hub: FakeHub, text: bytes) -> None:
    put(hub, {"config.json": b"{}", INDEX: text})
    with pytest.raises(ModelFileError, match="is no index of weights"):
        fetch_named(NAME)


@pytest.mark.parametrize("fault", ["short", "stall", "less", "503", "no-range", "from-start"])
def test_a_broken_transfer_goes_on(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    if fault == "stall":
        impatient(monkeypatch)
    needed = put(hub, {**NEEDED, **sharded()})
    hub.faults.extend(["", "", fault, "", fault])
    assert held(fetch_named(NAME)) == needed


def test_nothing_counts_before_the_last_file_is_here(hub: FakeHub) -> None:
    needed = put(hub, {**NEEDED, **sharded()})
    hub.faults.extend([""] * (len(contents(needed)) - 1) + ["404"])
    with pytest.raises(DownloadError, match="answered 404"):
        fetch_named(NAME)
    assert not [*hub_cache().glob("*/snapshots/*/*")]
    assert cached_named(NAME) is None
    assert kept_models() == []
    before = hub.sent
    assert held(fetch_named(NAME)) == needed
    assert hub.transfers == len(contents(needed)) + 1
    assert hub.sent == sum(map(len, contents(needed)))
    assert before < hub.sent


def test_what_a_broken_pull_left_is_removed_on_demand(hub: FakeHub) -> None:
    needed = put(hub, {**NEEDED, **sharded()})
    hub.faults.extend(["", "", "404"])
    with pytest.raises(DownloadError):
        fetch_named(NAME)
    assert remove_unfinished() == hub.sent > 0
    assert not [*hub_cache().glob("*/blobs/*")]
    path = fetch_named(NAME)
    assert remove_unfinished() == 0
    assert held(path) == needed


def test_other_bytes_are_not_kept(hub: FakeHub) -> None:
    put(hub, {**NEEDED, **sharded()})
    hub.faults.extend(["", "", "wrong-bytes"])
    with pytest.raises(ChecksumMismatch, match="not the file that the hub promises"):
        fetch_named(NAME)
    assert not [*hub_cache().glob("*/snapshots/*/*")]


@pytest.mark.parametrize("name", ["config.json", SHARDS[1]])
def test_a_changed_file_is_fetched_again(hub: FakeHub, name: str) -> None:
    needed = put(hub, {**NEEDED, **sharded()})
    path = fetch_named(NAME)
    before = hub.transfers
    (path / name).resolve().write_bytes(b"other")
    assert held(fetch_named(NAME)) == needed
    (path / name).resolve().unlink()
    assert held(fetch_named(NAME)) == needed
    assert hub.transfers == before + 2


@pytest.mark.parametrize("fetched_by_another_tool", [False, True])
def test_every_flipped_bit_is_found(hub: FakeHub, fetched_by_another_tool: bool) -> None:
    needed = put(hub, {**NEEDED, **sharded()})
    if fetched_by_another_tool:
        from huggingface_hub import hf_hub_download

        for name in needed:
            hf_hub_download(REPOSITORY, name, cache_dir=hub_cache(), endpoint=hub.url)
    path = fetch_named(NAME)
    (kept,) = kept_models()
    assert kept.verify()
    chance, caught = random.Random(5), 0
    for number in range(FLIPS):
        name = [*needed][number % len(needed)]
        file, place = (path / name).resolve(), chance.randrange(8 * len(needed[name]))
        flip_a_bit(file, place)
        caught += kept.verify() is False
        flip_a_bit(file, place)
    assert caught == FLIPS
    assert kept.verify()


def test_a_folder_that_another_tool_fetched_is_taken(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import hf_hub_download

    needed = put(hub, {**NEEDED, **sharded()})
    for name in [*NEEDED, INDEX, *SHARDS[:2]]:
        hf_hub_download(REPOSITORY, name, cache_dir=hub_cache(), endpoint=hub.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OfflineError):
        fetch_named(NAME)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    transfers = hub.transfers
    hf_hub_download(REPOSITORY, SHARDS[2], cache_dir=hub_cache(), endpoint=hub.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert held(fetch_named(NAME)) == needed
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert held(fetch_named(NAME)) == needed
    assert hub.transfers == transfers + 1


def test_a_newer_version_is_fetched_when_asked_and_only_what_changed(hub: FakeHub) -> None:
    put(hub, {**NEEDED, **sharded()})
    old = fetch_named(NAME)
    put(hub, {SHARDS[0]: b"newer" * 5000})
    hub.commit = "d" * 40
    transfers = hub.transfers
    assert fetch_named(NAME) == old
    new = fetch_named(NAME, refresh=True)
    assert new != old
    assert (new / SHARDS[0]).read_bytes() == b"newer" * 5000
    assert hub.transfers == transfers + 1
    assert fetch_named(NAME) == new
    assert len(find_kept(str(NAME))) == 2


def test_the_files_are_of_one_version_although_the_branch_moves(hub: FakeHub) -> None:
    """The list is asked once; what it tells of is what comes."""
    hub.bare = True
    needed = put(hub, {**NEEDED, **sharded()})
    assert held(fetch_named(NAME)) == needed
    assert hub.heads == len(needed) + 1


@pytest.mark.parametrize(
    "listed", [{"sha": None}, {"sha": "../.."}, {"siblings": 7}, {"siblings": [7]}, {"siblings": [{}]}, {"sha": 7}]
)
def test_a_list_that_makes_no_sense(hub: FakeHub, listed: dict[str, object]) -> None:
    put(hub, NEEDED)
    hub.listed = listed
    with pytest.raises(DownloadError, match="does not tell which files"):
        fetch_named(NAME)
    assert not hub_cache().exists()


def test_a_repository_whose_terms_were_not_accepted(hub: FakeHub) -> None:
    put(hub, {**NEEDED, **sharded()})
    hub.gated = True
    with pytest.raises(DownloadError, match=r"open only to those who accepted its terms\. Accept them on"):
        fetch_named(NAME)
    assert hub.transfers == 0


def test_names_that_leave_the_repository_are_not_even_listed(hub: FakeHub) -> None:
    put(hub, {"config.json": b"{}", "sub/vocab.json": b"{}", **OTHERS})
    names = set(ask_listing(NAME, "main").files)
    assert {"config.json", "sub/vocab.json", "onnx/model.onnx"} < names
    assert not [name for name in names if name.startswith(".")]


def test_threads_fetch_once(hub: FakeHub) -> None:
    needed = put(hub, {**NEEDED, **sharded()})
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch_named(NAME))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 6
    assert len(set(found)) == 1
    assert hub.transfers == len(contents(needed))


def test_a_system_without_links(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(self: Path, target: object, target_is_directory: bool = False) -> None:
        raise OSError(1, "no links here")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    needed = put(hub, {**NEEDED, **sharded()})
    path = fetch_named(NAME)
    assert held(path) == needed
    assert fetch_named(NAME, refresh=True) == path
    assert hub.transfers == len(contents(needed))
    (path / SHARDS[0]).write_bytes(b"x")
    assert held(fetch_named(NAME)) == needed


def test_progress_is_that_of_all_files(hub: FakeHub) -> None:
    class Listener:
        heard: list[object] = []  # noqa: RUF012

        def start(self, name: str, total_bytes: int) -> None:
            self.heard += [name, total_bytes]

        def advance_to(self, done_bytes: int) -> None:
            self.heard.append(done_bytes)

        def finish(self) -> None:
            self.heard.append("finish")

    needed = put(hub, {**NEEDED, "model.safetensors": b"whole" * 40_000})
    hub.faults.extend(["", "short"])
    fetch_named(NAME, progress=Listener())
    name, total, *steps, end = Listener.heard
    assert (name, total, end) == (str(NAME), sum(map(len, needed.values())), "finish")
    assert steps == sorted(steps)  # type: ignore[type-var]
    assert steps[-1] == total


def test_removing_leaves_nothing(hub: FakeHub) -> None:
    needed = put(hub, {**NEEDED, **sharded()})
    fetch_named(NAME)
    assert remove(str(NAME)) == sum(map(len, contents(needed)))
    assert not [*hub_cache().glob("*/blobs/*")]
    assert not [*hub_cache().glob("*/snapshots/*")]
    assert kept_models() == []
    assert held(fetch_named(NAME)) == needed


def test_a_pull_of_a_folder_under_way_is_left_alone(hub: FakeHub) -> None:
    from local_llms.hub.lock import file_lock

    put(hub, {**NEEDED, **sharded()})
    hub.faults.extend(["", "", "404"])
    with pytest.raises(DownloadError):
        fetch_named(NAME)
    (lock,) = Repository.of(REPOSITORY).locks.glob(f"{COMMIT}-*.lock")
    with file_lock(lock):
        assert remove_unfinished() == 0
    assert os.listdir(Repository.of(REPOSITORY).folder / "blobs")
