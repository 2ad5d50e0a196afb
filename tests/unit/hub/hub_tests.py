"""What the tests of the hub have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llms.hub import fetch, hf_transfer
from local_llms.hub.source import HubSource
from tests.unit.hub.fake_hub import FILE, REPOSITORY, FakeHub, serve
from tests.unit.hub.wheels import Card


def running_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that ``HF_ENDPOINT`` names, a cache of its own (the one of ``HF_HOME``), and no pauses."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 30)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 30)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere/token")
    monkeypatch.setattr(hf_transfer, "_PAUSE_SECONDS", 0.0)
    with serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break a transfer off in which nothing comes for half a second."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)


def source(file: str = FILE, **more: object) -> HubSource:
    return HubSource.model_validate({"kind": "hub", "repository": REPOSITORY, "file": file, **more})


def get(file: str = FILE, **more: object) -> Path:
    """Fetch a file as a model of the catalog would be."""
    return fetch(Card("owl-1b", (source(file, **more),)))  # type: ignore[arg-type]
