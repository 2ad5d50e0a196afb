"""A user's file adds a family, its templates, its models and its classes. Nothing else has to change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from local_llms.catalog import (
    class_names,
    default_model,
    families,
    find_family,
    find_model,
    find_template,
    list_models,
)
from local_llms.errors import CatalogError, ModelNotFound
from local_llms.hub import fetch
from tests.unit.catalog.conftest import OWL, Write

SHIPPED = "smollm2-135m-instruct"


def test_one_file_is_a_family(write: Write) -> None:
    write()
    assert find_family("owl").title == "Owl"
    family, template = find_template("owl")
    assert (family.name, template.source.strip()) == ("owl", "[[models]]\n{{ messages[0].content }}")
    assert class_names()["OwlLLM"] == ("owl", "llm")
    assert class_names()["ChatOwl"] == ("owl", "chat")
    assert [card.name for card in list_models("owl")] == ["owl-1b", "owl-2b"]
    assert {"smollm2", "alpaca", "vicuna", "plain", "owl"} <= families().keys()


def test_a_model_takes_what_it_leaves_open_from_its_family(write: Write) -> None:
    write()
    small, large = find_model("owl-1b"), find_model("owl-2b")
    assert (small.family, small.template, dict(small.sampling)) == (
        "owl",
        "owl",
        {"temperature": 0.25, "stop": ["Night:"]},
    )
    assert (large.template, dict(large.sampling)) == ("chatml", {"temperature": 0.5, "stop": ["Night:"]})
    assert (large.size, large.sha256) == (90, "0" * 64)
    assert (small.size, small.sha256) == (None, None)


def test_a_file_of_the_users_own_lies_beside_the_catalog_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write().parent
    weights = folder / "weights" / "owl-1b.gguf"
    weights.parent.mkdir()
    weights.write_bytes(b"GGUF")
    assert fetch(find_model("owl-1b")) == weights
    assert find_model("owl-1b").size == 4
    monkeypatch.setenv("HOME", str(folder))
    write(OWL.replace("weights/owl-1b.gguf", "~/weights/owl-1b.gguf"))
    assert fetch(find_model("owl-1b")) == weights


def test_the_users_default_goes_before_the_packages(write: Write) -> None:
    assert default_model() == SHIPPED
    write(OWL.replace('name = "owl-1b"\n', 'name = "owl-1b"\ndefault = true\n'))
    assert default_model() == "owl-1b"
    assert default_model("embed") == "all-minilm-l6-v2"


def test_a_changed_a_new_and_a_removed_file_are_noticed(write: Write) -> None:
    path = write()
    assert find_model("owl-1b").parameters == 10**9
    write(OWL.replace("1_000_000_000", "1_234_000_000"))
    os.utime(path, ns=(1, 1))
    assert find_model("owl-1b").parameters == 1_234_000_000
    write('name = "wren"\ntitle = "Wren"\n', "wren.toml")
    assert find_family("wren").title == "Wren"
    path.unlink()
    with pytest.raises(ModelNotFound):
        find_model("owl-1b")


def test_another_home_has_another_catalog(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write()
    assert "owl" in families()
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(tmp_path))
    assert "owl" not in families()


def test_asking_again_reads_no_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write()
    before = find_model("owl-1b")

    def refuse(*arguments: object, **options: object) -> str:
        raise AssertionError("a file was read again")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert find_model("owl-1b") is before


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (OWL, "family 'owl'"),
        (OWL.replace('name = "owl"\ntitle', 'name = "owl2"\ntitle'), "template 'owl'"),
        (OWL.replace('"owl"', '"owl2"'), "model 'owl-1b'"),
        (OWL.replace('"owl"', '"owl2"').replace("owl-", "owl2-"), "class 'OwlLLM'"),
    ],
)
def test_a_name_given_twice_names_both_files(write: Write, text: str, what: str) -> None:
    first = write()
    second = write(text, "second.toml")
    with pytest.raises(CatalogError) as caught:
        find_model(SHIPPED)
    assert what in str(caught.value)
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)


def test_a_name_of_the_package_cannot_be_taken(write: Write) -> None:
    path = write(OWL.replace('name = "owl-1b"', f'name = "{SHIPPED}"'))
    with pytest.raises(CatalogError, match=SHIPPED) as caught:
        find_model(SHIPPED)
    assert str(path) in str(caught.value)
    assert "smollm2.toml" in str(caught.value)


def test_two_defaults_name_both_models(write: Write) -> None:
    write(OWL.replace("parameters =", "default = true\nparameters ="))
    with pytest.raises(CatalogError, match=r"owl-1b .* owl-2b"):
        default_model()


@pytest.mark.parametrize("line", ['default_template = "owll"', 'template = "owll"'])
def test_a_template_that_does_not_exist_names_the_nearest(write: Write, line: str) -> None:
    key = line.split(" ")[0]
    text = (
        OWL.replace('default_template = "owl"', line)
        if key == "default_template"
        else OWL.replace('template = "chatml"', line)
    )
    path = write(text)
    with pytest.raises(CatalogError, match=r"'owll'.*Did you mean 'owl'\?") as caught:
        find_model("owl-2b")
    assert str(path) in str(caught.value)


def test_a_model_that_writes_text_needs_a_template(write: Write) -> None:
    text = OWL.replace('default_template = "owl"\n', "").replace('[classes]\nllm = "OwlLLM"\nchat = "ChatOwl"\n', "")
    write(text)
    with pytest.raises(CatalogError, match=r'owl-1b has no template.*"plain"'):
        find_model("owl-1b")


def test_a_file_that_is_no_text_is_named(write: Write) -> None:
    path = write()
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CatalogError, match="UTF-8") as caught:
        families()
    assert str(path) in str(caught.value)
