"""Files of the Hugging Face hub: fetched, verified, kept in the shared cache, and what goes wrong on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from local_llms.hub.hf_cache import hub_cache
from tests.unit.hub.fake_hub import COMMIT, FILE, FakeHub
from tests.unit.hub.hub_tests import get, running_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    yield from running_hub(monkeypatch)


def test_a_file_is_fetched_once(hub: FakeHub) -> None:
    path = get()
    assert path.read_bytes() == hub.files[FILE]
    assert path == hub_cache() / "models--owls--owl-1b-GGUF" / "snapshots" / COMMIT / FILE
    assert get() == path
    assert (hub.heads, hub.transfers) == (1, 1)
    assert hub.sent == len(hub.files[FILE])
    assert path.resolve().name == hashlib.sha256(hub.files[FILE]).hexdigest()
