"""Packages that bring families, and what a licence allows."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_llms import resolve
from local_llms.catalog import find_family, find_model, list_models, registry
from local_llms.errors import CatalogError, ModelFileError
from local_llms.resolve import find_source
from tests.unit.catalog.conftest import OWL, Write

Install = Callable[..., Path]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Install]:
    """Install a package with an entry point, as pip would."""

    def install(text: str = OWL, value: str = "owl_families") -> Path:
        info = tmp_path / "owl_families-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: owl-families\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[local_llms.families]\nowls = {value}\n")
        package = tmp_path / "owl_families"
        package.mkdir()
        (package / "__init__.py").write_text("raise SystemExit('reading data must not run code')\n")
        (package / "owl.toml").write_text(text, "utf-8")
        monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
        forget()
        return package

    yield install
    monkeypatch.undo()
    forget()


def forget() -> None:
    registry._of_packages.cache_clear()
    registry._load.cache_clear()


def test_a_package_brings_families(install: Install) -> None:
    package = install()
    assert find_family("owl").title == "Owl"
    assert find_model("owl-1b").sources[0].path == package / "weights" / "owl-1b.gguf"


def test_a_mistake_names_the_package(install: Install) -> None:
    install(OWL.replace("licence =", "lisence ="))
    with pytest.raises(CatalogError, match=r"owl\.toml has mistakes: line 23, models\[0\]\.lisence: .*'licence'"):
        list_models()


def test_a_name_of_the_user_must_differ(install: Install, write: Write) -> None:
    install()
    write()
    with pytest.raises(CatalogError, match="the entry point owls of owl-families"):
        list_models()


def test_an_entry_point_that_names_nothing(install: Install) -> None:
    install(value="no_such_package")
    with pytest.raises(CatalogError, match=r"the entry point owls of owl-families names 'no_such_package'"):
        list_models()


def test_what_may_be_used_commercially(write: Write) -> None:
    write(OWL.replace('commercial_use = "yes"', 'commercial_use = "no"'))
    assert "owl-1b" in {card.name for card in list_models(commercial_use=False)}
    assert {card.commercial_use for card in list_models(commercial_use=True)} == {"yes"}
    assert list_models(commercial_use=True) == list_models(commercial_use="yes")


def test_a_model_that_must_not_be_sold_says_so_once(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    write(OWL.replace('commercial_use = "yes"', 'commercial_use = "no"'))
    resolve._say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "local_llms"):
        for _ in range(2):
            with pytest.raises(ModelFileError):
                find_source("owl-1b", None).path()
    assert [record.getMessage() for record in caplog.records] == [
        "The licence of the model owl-1b (MIT) does not allow commercial use."
    ]
