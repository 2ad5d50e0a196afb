"""The families that come with the package."""

from __future__ import annotations

import pytest

from local_llms.catalog import (
    AdapterCard,
    HubSource,
    ModelCard,
    PackageSource,
    class_names,
    default_model,
    families,
    find_adapter,
    find_family,
    find_model,
    find_template,
    list_adapters,
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


@pytest.mark.parametrize("card", [*list_models(), *list_adapters()], ids=lambda card: card.name)
def test_everything_has_sourced_facts_and_a_place(card: ModelCard | AdapterCard) -> None:
    assert card.licence != "unknown"
    assert card.commercial_use != "unknown"
    assert card.licence_source
    assert card.sources or len(card.notes) > 60, "notes say how one comes by the files"
    for source in card.sources:
        # Of what is on the hub, the hub tells the digest when it is fetched.
        if not isinstance(source, HubSource):
            assert isinstance(source, PackageSource), "a file of the user's own cannot be shipped"
            assert source.sha256 or source.convert != "none"


@pytest.mark.parametrize("card", list_models(), ids=lambda card: card.name)
def test_every_model_has_its_size_and_context(card: ModelCard) -> None:
    assert card.parameters > 0
    assert card.context_length > 0


def test_no_place_is_named_twice() -> None:
    places = [
        (source.repository.lower(), source.file)
        for card in (*list_models(), *list_adapters())
        for source in card.sources
        if isinstance(source, HubSource)
    ]
    assert len(places) == len(set(places))


def test_nothing_over_llama_is_for_commercial_use() -> None:
    """The first LLaMA and all that is built on it: models that say so, and adapters over them."""
    bases = {card.name for card in list_models("llama") if card.template == "plain"}
    assert bases == {"llama-7b", "llama-13b", "llama-33b", "llama-65b"}
    over = [card for card in list_models() if card.name in bases or "LLaMA" in card.licence]
    over += [card for card in list_adapters() if card.base in bases]
    assert {card.commercial_use for card in over} == {"no"}
    assert len(over) > 30
    others = [card for card in list_models(commercial_use=False) if card not in over]
    assert {card.name for card in others} == {
        "dolly-v1-6b",
        "chinese-alpaca-pro-7b",
        "chinese-alpaca-pro-13b",
        "chinese-alpaca-pro-33b",
    }


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("codealpaca-7b", "did not release weights"),
        ("gpt4-alpaca-lora-7b", "GPT-4-LLM"),
        ("alpaca-cleaned-lora-7b", "AlpacaDataCleaned"),
        ("lit-llama-7b", "lit_model.pth"),
        ("xturing-llama-7b", "no prompt template"),
        ("alpaca-7b", "weight_diff.py"),
        ("vicuna-13b-v0", "apply_delta"),
        ("chinese-alpaca-lora-7b", "enlarges the vocabulary"),
    ],
)
def test_models_of_the_story_have_notes_of_their_own(name: str, says: str) -> None:
    (card,) = [card for card in (*list_models(), *list_adapters()) if card.name == name]
    assert says in card.notes


def test_adapters_are_found_by_their_base() -> None:
    over = list_adapters(base="llama-7b")
    assert {"alpaca-lora-7b", "guanaco-qlora-7b", "chinese-vicuna-lora-7b"} <= {card.name for card in over}
    assert {card.base for card in over} == {"llama-7b"}
    assert {card.family for card in list_adapters("guanaco")} == {"guanaco"}
    assert list_adapters(commercial_use=True) == []
    card = find_adapter("alpaca-lora-7b")
    assert (card.template, card.sampling["temperature"]) == ("alpaca-lora", 0.1)
    with pytest.raises(ModelNotFound, match=r"no adapter 'alpaca-lora7b'\. Did you mean 'alpaca-lora-7b'"):
        find_adapter("alpaca-lora7b")
    with pytest.raises(ModelNotFound, match="no model 'lama-7b'"):
        list_adapters(base="lama-7b")


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
