"""Pulls from the hub by several processes, and by processes that are killed.

``LOCAL_LLMS_TEST_KILLS`` says how many kills one pull has to survive: 4 in a usual run, 30 in a thorough one.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_llms.hub import cached_named, parse_hub_name
from local_llms.hub.hf_cache import hub_cache
from tests.unit.hub.fake_hub import FILE, REPOSITORY, FakeHub, model
from tests.unit.hub.hub_tests import running_hub

ROOT = Path(__file__).resolve().parents[3]
NAME = f"hf:{REPOSITORY}:{FILE}"
FOLDER = f"hf:{REPOSITORY}"
PULL = "from local_llms.hub import fetch_named, parse_hub_name; print(fetch_named(parse_hub_name({!r})))"
KILLS = int(os.environ.get("LOCAL_LLMS_TEST_KILLS", "4"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    yield from running_hub(monkeypatch)


def pull(name: str = NAME) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PULL.format(name)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def put_folder(hub: FakeHub, shard_bytes: int) -> dict[str, bytes]:
    """A model in three shards; its name on the hub is that of the repository."""
    shards = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    index = {"weight_map": {str(number): shard for number, shard in enumerate(shards)}}
    weights = {shard: model(size=shard_bytes, seed=number) for number, shard in enumerate(shards)}
    small = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}"}
    hub.files = {**small, "model.safetensors.index.json": json.dumps(index).encode(), **weights}
    return dict(hub.files)


def held(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def kill_again_and_again(hub: FakeHub, name: str, size: int, check: Callable[[Path], bool]) -> Path:
    """Pull a model of ``size`` bytes, kill the process at random moments, and let the last one come to its end."""
    hub.bytes_per_second = 20_000_000
    chance = random.Random(17)
    for number in range(KILLS):
        # One in four while it starts up, the others while bytes come.
        wanted = hub.sent + (chance.randrange(size // KILLS) if number % 4 else 0)
        here, begun = {file: hub.here(file) for file in hub.files}, len(hub.begun)
        process = pull(name)
        time.sleep(0 if number % 4 else chance.uniform(0, 1))
        while hub.sent < wanted and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.communicate(timeout=200)
        # Nothing that had arrived is sent again. What was on its way when a process was killed is, however much it was.
        assert dict(reversed(hub.begun[begun:])).items() <= here.items()
        found = cached_named(parse_hub_name(name))
        assert found is None or check(found)
    assert hub.transfers >= KILLS // 2
    hub.bytes_per_second = None
    here, begun = {file: hub.here(file) for file in hub.files}, len(hub.begun)
    last = pull(name)
    path = Path(last.communicate(timeout=200)[0].strip())
    assert last.returncode == 0
    assert check(path)
    print(f"{KILLS} kills: {hub.sent / size:.4f} times the bytes in {hub.transfers} requests")
    assert dict(reversed(hub.begun[begun:])).items() <= here.items()
    return path


def test_a_pull_that_is_killed_again_and_again(hub: FakeHub) -> None:
    content = model(size=max(8, 2 * KILLS) * 1_000_000)
    hub.files[FILE] = content
    kill_again_and_again(hub, NAME, len(content), lambda path: path.read_bytes() == content)
    assert [entry.name for entry in hub_cache().glob("*/blobs/*")] == [hub.etag(FILE)]


def test_a_pull_of_a_folder_that_is_killed_again_and_again(hub: FakeHub) -> None:
    files = put_folder(hub, shard_bytes=max(3, KILLS * 2 // 3) * 1_000_000)
    path = kill_again_and_again(hub, FOLDER, sum(map(len, files.values())), lambda path: held(path) == files)
    assert path.name == hub.commit
    assert {entry.name for entry in hub_cache().glob("*/blobs/*")} == {hub.etag(name) for name in files}


def test_eight_processes_fetch_once(hub: FakeHub) -> None:
    hub.files[FILE] = model(size=4_000_000)
    hub.bytes_per_second = 4_000_000
    processes = [pull() for _ in range(8)]
    paths = {process.communicate(timeout=200)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0] * 8
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == hub.files[FILE]
    assert hub.transfers == 1
    assert hub.sent == len(hub.files[FILE])


def test_eight_processes_fetch_a_folder_once(hub: FakeHub) -> None:
    files = put_folder(hub, shard_bytes=1_000_000)
    hub.bytes_per_second = 4_000_000
    processes = [pull(FOLDER) for _ in range(8)]
    paths = {process.communicate(timeout=200)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0] * 8
    assert len(paths) == 1
    assert held(Path(paths.pop())) == files
    assert hub.transfers == len(files)
    assert hub.sent == sum(map(len, files.values()))
