"""For all tests: a home of their own, the test data, and the two small real models."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import platformdirs
import pytest

# A run finds the same examples every time, and no machine is too slow for one. To search on:
# ``pytest --hypothesis-profile=default``.
hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parents[1]
UNIT = Path(__file__).resolve().parent / "unit"


@pytest.fixture(scope="session", autouse=True)
def home() -> Iterator[Path]:
    """``LOCAL_LLMS_HOME`` for the whole run, so that nobody's own models and families are touched.

    ``LOCAL_LLMS_TEST_HOME``, else a folder in the user's cache: it keeps fetched models from one run to the next.
    """
    kept = os.environ.get("LOCAL_LLMS_TEST_HOME")
    folder = Path(kept).expanduser().absolute() if kept else platformdirs.user_cache_path("local_llms-tests")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_LLMS_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def _unit_tests_stay_at_home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test has an empty home, reaches no other machine, and pip finds nothing unless the test offers it."""
    if not request.path.is_relative_to(UNIT):
        return
    folder = request.getfixturevalue("tmp_path_factory").mktemp("home")
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(folder))
    for name in [name for name in os.environ if name.startswith(("PIP_", "HF_", "HUGGING_FACE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(folder / "huggingface"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _only_here(getattr(socket.socket, name)))


def _only_here(connect):
    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise PermissionError(f"a unit test must not reach {address}")
        return connect(self, address)

    return guarded


@pytest.fixture(scope="session", autouse=True)
def _no_loop_of_its_own() -> None:
    """Before Python 3.14, llama-index's sync methods make the main thread's first event loop and leave it open.

    Told that there is none they run one that they close.
    """
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of test data outside the project; skips where it is absent."""
    folder = Path(os.environ.get("LOCAL_LLMS_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"the test data is absent: {folder} (LOCAL_LLMS_TEST_DATA names another folder)")
    return folder


@pytest.fixture(scope="session")
def shared_data(data: Path) -> Path:
    """The same folder, under the name that it has beside the project."""
    return data


@pytest.fixture(scope="session")
def smollm2_path(home: Path) -> Path:
    """The file of smollm2-135m-instruct; skips without a network, where it was never fetched."""
    return fetched("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def minilm_path(home: Path) -> Path:
    """The file of all-minilm-l6-v2; skips without a network, where it was never fetched."""
    return fetched("all-minilm-l6-v2")


def fetched(name: str) -> Path:
    from local_llms.catalog import find_model
    from local_llms.errors import OfflineError
    from local_llms.hub import fetch

    try:
        return fetch(find_model(name))
    except OfflineError as error:
        pytest.skip(f"{name} needs a network once: {error}")
