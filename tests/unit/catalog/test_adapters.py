"""Adapters of the catalog: described, checked, found on the hub, loaded by name alone or over their base."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from local_llms import load_model
from local_llms.about import describe
from local_llms.catalog import families, find_adapter, list_adapters
from local_llms.cli.main import app
from local_llms.errors import AdapterError, CatalogError, ModelNotFound, OfflineError, OptionError
from local_llms.hub import fetch
from local_llms.kept import pull
from local_llms.resolve import adapter_path, find_source
from tests.unit.catalog.conftest import Write
from tests.unit.hub.fake_hub import REPOSITORY, FakeHub
from tests.unit.hub.hub_tests import running_hub

BARD = """\
name = "bard"
title = "Bard"
default_template = "plain"

[[models]]
name = "stories-260k"
sources = [{ kind = "file", path = "BASE" }]

[[adapters]]
name = "shakespeare-lora"
base = "stories-260k"
template = "alpaca"
licence = "Owl Licence"
commercial_use = "no"
notes = "It makes plays of stories."
sampling = { temperature = 0 }
sources = [{ kind = "file", path = "ADAPTER" }]

[[adapters]]
name = "tragedy-lora"
base = "stories-260k"
sources = [{ kind = "hub", repository = "REPOSITORY" }]
""".replace("REPOSITORY", REPOSITORY)


@pytest.fixture
def bard(write: Write, data: Path) -> str:
    models = data / "models"
    (base,) = models.glob("stories260K/*F32.gguf")
    text = BARD.replace("BASE", str(base)).replace("ADAPTER", str(models / "stories260K-lora"))
    write(text, "bard.toml")
    return str(base)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for hub in running_hub(monkeypatch):
        small = b"{}"
        hub.files = {"adapter_config.json": small, "adapter_model.safetensors": b"lora" * 500, "README.md": b"#"}
        hub.etags["adapter_config.json"] = hashlib.sha1(b"blob 2\0" + small).hexdigest()
        yield hub


def test_an_adapter_belongs_to_its_family(bard: str) -> None:
    card = find_adapter("tragedy-lora")
    assert (card.family, card.template, card.sampling) == ("bard", "plain", {})
    assert [card.name for card in list_adapters("bard")] == ["shakespeare-lora", "tragedy-lora"]


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ('base = "stories-260k"', 'base = "story-260k"', r"base of shakespeare-lora is 'story-260k'.*'stories-260k'"),
        ('base = "stories-260k"\n', "", r"adapters\[0\].base: this key is missing"),
        ('template = "alpaca"', 'template = "alpacca"', r"template of shakespeare-lora is 'alpacca'.*'alpaca'"),
        ('licence = "Owl Licence"', 'license = "Owl"', r"line 13, adapters\[0\].license: .*'licence'"),
        ('name = "tragedy-lora"', 'name = "stories-260k"', r"The model 'stories-260k' stands in"),
        ('sources = [{ kind = "hub"', 'source = [{ kind = "hub"', r"adapters\[1\].source: .*'sources'"),
        (
            'base = "stories-260k"\nsources = [{ kind = "hub"',
            'base = "stories-260k"\nsources = []\n#',
            r"adapters\[1\]: without sources it needs notes",
        ),
    ],
)
def test_a_mistake_is_named(write: Write, right: str, wrong: str, message: str) -> None:
    assert right in BARD
    write(BARD.replace(right, wrong, 1), "bard.toml")
    with pytest.raises(CatalogError, match=message):
        families()


def test_the_name_of_an_adapter_is_its_base_with_it(bard: str, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    with load_model("stories-260k", context_length=256) as base, caplog.at_level(logging.WARNING, "local_llms"):
        plain = base.generate("Once upon a time", max_tokens=24, temperature=0).text
        with load_model("shakespeare-lora", context_length=256) as both:
            assert both.info.licence == "Owl Licence"
            assert both.info.template == "alpaca"
            assert str(both.info.path) == bard
            text = both.generate("Once upon a time", template="plain", max_tokens=24).text
        assert text != plain
        over = base.generate("Once upon a time", adapter="shakespeare-lora", max_tokens=24, temperature=0).text
        assert over == text
    said = [record.getMessage() for record in caplog.records]
    assert said == ["The licence of the model shakespeare-lora (Owl Licence) does not allow commercial use."]


def test_one_adapter_at_a_time(bard: str) -> None:
    with pytest.raises(OptionError, match="shakespeare-lora is an adapter itself: use others over its base"):
        load_model("shakespeare-lora", adapter="tragedy-lora")


def test_what_an_adapter_is_can_be_seen_without_loading(bard: str) -> None:
    about = describe("shakespeare-lora")
    assert about.adapter == "shakespeare-lora over stories-260k"
    assert (about.template, about.licence, about.commercial_use, about.family) == (
        "alpaca",
        "Owl Licence",
        "no",
        "bard",
    )
    assert about.notes == "It makes plays of stories."
    result = CliRunner().invoke(app, ["info", "shakespeare-lora"])
    assert "shakespeare-lora over stories-260k" in result.stdout


def test_adapters_are_listed(bard: str) -> None:
    result = CliRunner().invoke(app, ["list", "--adapters", "--family", "bard"])
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["shakespeare-lora", "stories-260k", "bard", "Owl", "Licence", "no", "yes"] in rows
    assert ["tragedy-lora", "stories-260k", "bard", "unknown", "unknown", "no"] in rows
    result = CliRunner().invoke(app, ["list", "--family", "bard"])
    assert "There are adapters too, 2 of them" in result.stdout
    assert "shakespeare-lora" not in result.stdout
    result = CliRunner().invoke(app, ["list", "--adapters", "--family", "brad"])
    assert result.exit_code == 1
    assert "Did you mean 'bard'?" in result.stderr


def test_an_adapter_is_fetched_from_the_hub_and_nothing_else(bard: str, hub: FakeHub) -> None:
    path = adapter_path("tragedy-lora")
    assert sorted(file.name for file in path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert adapter_path(f"hf:{REPOSITORY}") == path
    assert fetch(find_adapter("tragedy-lora"), want="adapter") == path
    assert hub.transfers == 2
    assert pull("tragedy-lora") == path


def test_a_place_on_the_hub_that_is_an_adapter_of_the_catalog(bard: str) -> None:
    source = find_source(f"hf:{REPOSITORY}", None)
    assert source.adapter is not None
    assert source.adapter.name == "tragedy-lora"
    assert str(source.path()) == bard


def test_an_adapter_without_a_network(bard: str, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OfflineError, match="HF_HUB_OFFLINE is set"):
        adapter_path("tragedy-lora")
    assert hub.listings == 0


@pytest.mark.parametrize("wrong", ["shakespear-lora", "tragedylora"])
def test_a_misspelt_adapter_gets_the_nearest_name(bard: str, wrong: str) -> None:
    with pytest.raises(AdapterError, match=r"Did you mean '(shakespeare|tragedy)-lora'"):
        adapter_path(wrong)
    with pytest.raises(ModelNotFound, match=r"Did you mean '(shakespeare|tragedy)-lora'"):
        load_model(wrong)


def test_weights_that_nobody_offers_say_how_one_comes_by_them() -> None:
    from local_llms.errors import ModelFileError

    with pytest.raises(ModelFileError, match=r"no place where alpaca-7b can be fetched\. Stanford publishes only"):
        load_model("alpaca-7b")
    result = CliRunner().invoke(app, ["pull", "alpaca-7b"])
    assert result.exit_code == 1
    assert "weight_diff.py" in result.stderr
