"""The families that come with the package."""

from __future__ import annotations

import pytest

from local_llms.catalog import (
    HubSource,
    PackageSource,
    class_names,
    default_model,
    families,
    find_family,
    find_model,
    find_template,
    list_models,
)
from local_llms.errors import ModelNotFound


def test_each_file_has_the_name_of_its_family() -> None:
    from importlib import resources

    files = {file.name for file in (resources.files("local_llms") / "families").iterdir()}
    assert {f"{name}.toml" for name in families()} == {name for name in files if name.endswith(".toml")}


def test_the_default_models_are_in_the_catalog() -> None:
    assert find_model(default_model()).kind == "generate"
    assert find_model(default_model("embed")).kind == "embed"
    for kind in ("generate", "embed"):
        assert [card.name for card in list_models() if card.default and card.kind == kind] == [default_model(kind)]


def test_smollm2() -> None:
    card = find_model("smollm2-135m-instruct")
    assert card.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert (card.size, card.parameters, card.context_length) == (98_362_432, 134_515_008, 8192)
    assert (card.licence, card.commercial_use, card.template) == ("Apache-2.0", "yes", "smollm2")


@pytest.mark.parametrize("card", list_models(), ids=lambda card: card.name)
def test_every_model_has_sourced_facts_and_digests(card) -> None:
    assert card.parameters > 0
    assert card.context_length > 0
    assert card.licence != "unknown"
    assert card.commercial_use != "unknown"
    assert card.licence_source
    for source in card.sources:
        if isinstance(source, HubSource):
            # The hub tells the digest when the file is fetched.
            assert source.file.endswith(".gguf")
            continue
        assert isinstance(source, PackageSource), "a file of the user's own cannot be shipped"
        assert source.sha256 or source.convert != "none"


@pytest.mark.parametrize("family", families().values(), ids=lambda family: family.name)
def test_every_template_says_where_it_is_from(family) -> None:
    for template in family.templates:
        assert template.provenance, template.name


def test_the_list_can_be_narrowed() -> None:
    assert [card.name for card in list_models("minilm")] == ["all-minilm-l6-v2"]
    assert {card.commercial_use for card in list_models(commercial_use="yes")} == {"yes"}
    assert list_models(commercial_use="no") == [card for card in list_models() if card.commercial_use == "no"]
    with pytest.raises(ModelNotFound, match=r"no family 'minilmm'.*'minilm'"):
        list_models("minilmm")


def test_class_names_lead_to_families_with_a_template() -> None:
    assert class_names()["VicunaLLM"] == ("vicuna", "llm")
    assert class_names()["ChatAlpaca"] == ("alpaca", "chat")
    for family, _ in class_names().values():
        assert find_family(family).default_template is not None


@pytest.mark.parametrize(
    ("find", "wrong", "right"),
    [
        (find_model, "smolm2-135m", "smollm2-135m-instruct"),
        (find_template, "vicuna-1.1", "vicuna-v1.1"),
        (find_family, "Vicuna", "vicuna"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(find, wrong: str, right: str) -> None:
    with pytest.raises(ModelNotFound, match=f"'{wrong}'.*'{right}'"):
        find(wrong)


def test_plain_is_the_text_alone() -> None:
    _, template = find_template("plain")
    assert (template.bos_token, template.eos_token, template.stop) == ("", "", ())
