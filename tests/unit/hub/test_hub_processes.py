"""Pulls from the hub by several processes, and by processes that are killed.

``LOCAL_LLMS_TEST_KILLS`` says how many kills one pull has to survive: 4 in a usual run, 30 in a thorough one.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llms.hub import cached_named, parse_hub_name
from local_llms.hub.hf_cache import hub_cache
from tests.unit.hub.fake_hub import FILE, REPOSITORY, FakeHub, model
from tests.unit.hub.hub_tests import running_hub

ROOT = Path(__file__).resolve().parents[3]
NAME = f"hf:{REPOSITORY}:{FILE}"
PULL = f"from local_llms.hub import fetch_named, parse_hub_name; print(fetch_named(parse_hub_name({NAME!r})))"
KILLS = int(os.environ.get("LOCAL_LLMS_TEST_KILLS", "4"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    yield from running_hub(monkeypatch)


def pull() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PULL], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_pull_that_is_killed_again_and_again(hub: FakeHub) -> None:
    content = model(size=max(8, 2 * KILLS) * 1_000_000)
    hub.files[FILE] = content
    hub.bytes_per_second = 20_000_000
    chance = random.Random(17)
    for number in range(KILLS):
        # One in four while it starts up, the others while bytes come.
        wanted = hub.sent + (chance.randrange(len(content) // KILLS) if number % 4 else 0)
        process = pull()
        time.sleep(0 if number % 4 else chance.uniform(0, 1))
        while hub.sent < wanted and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.communicate(timeout=60)
        found = cached_named(parse_hub_name(NAME))
        assert found is None or found.read_bytes() == content
    assert hub.transfers >= KILLS // 2
    hub.bytes_per_second = None
    last = pull()
    path = last.communicate(timeout=200)[0].strip()
    assert last.returncode == 0
    assert Path(path).read_bytes() == content
    assert [entry.name for entry in hub_cache().glob("*/blobs/*")] == [hub.etag(FILE)]
    assert hub.sent <= 1.1 * len(content), f"{hub.sent / len(content):.3f} times the bytes, {hub.transfers} requests"


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
