"""What is kept here: listed, verified to the bit, removed; and the commands for it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from local_llms.cli.main import app
from local_llms.errors import ModelNotFound
from local_llms.hub import fetch, kept_models
from local_llms.hub.hf_cache import Repository, hub_cache
from local_llms.hub.lock import file_lock
from local_llms.kept import find_kept, remove, remove_unfinished
from local_llms.paths import cache_dir
from tests.unit.hub.conftest import Offer
from tests.unit.hub.fake_hub import COMMIT, FILE, REPOSITORY, FakeHub, model
from tests.unit.hub.hub_tests import get, running_hub
from tests.unit.hub.wheels import CONTENT, card

NAME = f"hf:{REPOSITORY}:{FILE}"
FLIPS = 50


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    yield from running_hub(monkeypatch)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def flip_a_bit(path: Path, place: int) -> None:
    """As a failing disk would: neither the size nor the time of change tells."""
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(place // 8)
        byte = file.read(1)[0]
        file.seek(place // 8)
        file.write(bytes([byte ^ 1 << place % 8]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("kind", ["hub", "package"])
def test_every_flipped_bit_is_found(hub: FakeHub, offer: Offer, kind: str) -> None:
    hub.files[FILE] = model(60_000)
    offer()
    path = get() if kind == "hub" else fetch(card())
    (kept,) = kept_models()
    assert kept.verify()
    chance = random.Random(3)
    caught = 0
    for _ in range(FLIPS):
        place = chance.randrange(8 * path.stat().st_size)
        flip_a_bit(path.resolve(), place)
        caught += kept.verify() is False
        flip_a_bit(path.resolve(), place)
        if kind == "package":
            path.with_name(f"{path.name}.verified.json").unlink(missing_ok=True)
            fetch(card())
    assert caught == FLIPS


def test_a_damaged_file_is_fetched_again_once_it_was_found(hub: FakeHub) -> None:
    path = get()
    flip_a_bit(path.resolve(), 1_000_000)
    assert run("cache", "verify")[0] == 1
    assert get().read_bytes() == hub.files[FILE]
    assert hub.transfers == 2
    code, out, _ = run("cache", "verify", NAME)
    assert (code, out) == (0, f"good: {NAME}\n")


def test_pull_list_verify_remove(hub: FakeHub, offer: Offer) -> None:
    code, out, err = run("pull", f"hf:{REPOSITORY}")
    assert code == 0, err
    assert out == f"{hub_cache() / 'models--owls--owl-1b-GGUF' / 'snapshots' / COMMIT / FILE}\n"
    assert "verified" in err
    offer()
    fetch(card())
    code, out, _ = run("cache", "list")
    assert code == 0
    assert NAME in out
    assert "owl-1b " in out
    assert run("cache", "verify")[1] == f"good: {NAME}\ngood: owl-1b\n"
    code, out, _ = run("cache", "remove", NAME)
    assert (code, out) == (0, f"{round(len(hub.files[FILE]) / 1000)} kB are free now.\n")
    assert not [*hub_cache().glob("*/blobs/*")]
    assert remove("owl-1b") == len(CONTENT)
    assert not [*(cache_dir() / "models").iterdir()]
    assert run("cache", "list")[1].startswith("No model is kept here")


def test_pull_asks_for_a_newer_version(hub: FakeHub) -> None:
    run("pull", NAME)
    hub.files[FILE], hub.commit = model(seed=2), "d" * 40
    _, out, _ = run("pull", NAME)
    assert Path(out.strip()).read_bytes() == hub.files[FILE]
    assert len(find_kept(NAME)) == 2


def test_a_content_that_has_another_name_stays(hub: FakeHub) -> None:
    hub.files["twin.gguf"] = hub.files[FILE]
    get()
    twin = get("twin.gguf")
    assert hub.transfers == 1
    assert remove(NAME) == 0
    assert twin.read_bytes() == hub.files[FILE]
    assert remove(f"hf:{REPOSITORY}") == len(hub.files[FILE])


def test_unknown_names_and_actions(hub: FakeHub) -> None:
    get()
    with pytest.raises(ModelNotFound, match=f"Did you mean '{NAME}'"):
        find_kept(NAME.replace("Q4_0", "Q4_1"))
    code, _, err = run("cache", "verfiy")
    assert code == 1
    assert "Did you mean 'verify'?" in err
    code, _, err = run("cache", "remove")
    assert code == 1
    assert "Name what to remove" in err
    code, _, err = run("pull", "hf:../../etc/passwd")
    assert code == 1
    assert "no name of a model on the hub" in err


def test_what_broken_pulls_left_is_removed_on_demand(hub: FakeHub) -> None:
    repository = Repository.of(REPOSITORY)
    partial = repository.partial("0" * 64)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(bytes(1000))
    assert remove_unfinished("other/repo") == 0
    assert run("cache", "remove", "unfinished")[1] == "1 kB are free now.\n"
    assert not partial.exists()


def test_a_pull_under_way_is_left_alone(hub: FakeHub) -> None:
    repository = Repository.of(REPOSITORY)
    partial, lock = repository.partial("0" * 64), repository.lock("0" * 64)
    for path in (partial, lock):
        path.parent.mkdir(parents=True)
    partial.write_bytes(bytes(1000))
    with file_lock(lock):
        assert remove_unfinished() == 0
    assert partial.exists()


def test_files_that_other_tools_put_there_are_no_trouble(hub: FakeHub) -> None:
    get()
    for name in ("models--x", "datasets--a--b", "models--a--b", "version.txt", "models--..--..--x"):
        (hub_cache() / name).mkdir()
    (hub_cache() / "models--a--b" / "snapshots" / "main" / ".hidden").mkdir(parents=True)
    assert [kept.name for kept in kept_models()] == [NAME]
