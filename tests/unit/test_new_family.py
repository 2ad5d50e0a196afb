"""Adding a family is one file: a user's own file gives a template, models and classes in both frameworks."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from llama_index.core.base.llms.types import ChatMessage

import local_llms
from local_llms.catalog import list_models
from local_llms.errors import CatalogError
from local_llms.testing.scripted import EOS, SPECIALS, ScriptedBackend
from local_llms.testing.scripted_model import scripted_model

NAMES = {number: text for text, number in SPECIALS.items()}

OWL = """
name = "owl"
title = "Owl"
default_template = "owl"

[classes]
llm = "OwlLLM"
chat = "ChatOwl"

[sampling]
temperature = 0.0
max_tokens = 8

[[templates]]
name = "owl"
eos_token = "</s>"
stop = ["Night:"]
source = '''
{% for message in messages %}
{{- 'Day ' + message.role + ': ' + message.content + eos_token + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{- 'Owl:' }}
{%- endif %}
'''

[[models]]
name = "owl-tiny"
parameters = 12
licence = "Apache-2.0"
commercial_use = "yes"

[[models.sources]]
kind = "file"
path = "owl.scripted"
"""


@pytest.fixture
def heard():
    """Prompts that the owl was sent, markers included."""
    return []


@pytest.fixture
def owl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: list[str]):
    """A model file, with the family's file in the user's own folder."""
    folder = tmp_path / "config" / "families"
    folder.mkdir(parents=True)
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(tmp_path))

    def script(tokens):
        text = "".join(NAMES.get(token) or chr(token) for token in tokens)
        said = text.rpartition("Owl:")[2]
        if not said:
            heard.append(text)
        answer = " Hoo hoo hoo"
        return ord(answer[len(said)]) if len(said) < len(answer) else EOS

    with scripted_model(lambda: ScriptedBackend(script, context_length=1024)) as model:
        (folder / "owl.toml").write_text(OWL.replace("owl.scripted", model.path), "utf-8")
        yield model.path


def frameworks():
    return [importlib.import_module(f"local_llms.{name}") for name in ("langchain", "llama_index")]


def test_a_class_in_both_frameworks(owl, heard):
    langchain, llama_index = frameworks()
    assert langchain.OwlLLM(model=owl).invoke("Who?") == " Hoo hoo"
    assert llama_index.OwlLLM(model=owl).complete("Who?").text == " Hoo hoo"
    conversation = [("system", "Be wise."), ("user", "Who?")]
    assert langchain.ChatOwl(model=owl).invoke([SystemMessage("Be wise."), HumanMessage("Who?")]).content == " Hoo hoo"
    messages = [ChatMessage(role=role, content=text) for role, text in conversation]
    assert llama_index.OwlLLM(model=owl).chat(messages).message.content == " Hoo hoo"
    once, talk = "<s>Day user: Who?</s>\nOwl:", "<s>Day system: Be wise.</s>\nDay user: Who?</s>\nOwl:"
    assert heard == [once, once, talk, talk]


def test_its_classes_are_listed_and_pickled(owl):
    assert {"OwlLLM", "ChatOwl"} <= set(dir(local_llms))
    for module in frameworks():
        assert "OwlLLM" in dir(module)
        twin = pickle.loads(pickle.dumps(module.OwlLLM(model=owl, temperature=0.5)))
        assert (type(twin), twin.temperature) == (module.OwlLLM, 0.5)
    assert local_llms.OwlLLM is frameworks()[0].OwlLLM


def test_its_models_are_known_by_name(owl):
    assert [card.name for card in list_models("owl")] == ["owl-tiny"]
    for module in frameworks():
        llm = module.LocalLLM(model="owl-tiny")
        assert llm.loaded().info.template == "owl"
        assert llm.loaded().info.licence == "Apache-2.0"


def test_without_the_file_there_is_no_class():
    for module in frameworks():
        with pytest.raises(AttributeError, match="OwlLLM"):
            module.OwlLLM  # noqa: B018


def test_a_mistake_in_the_file_is_named(owl, tmp_path):
    (tmp_path / "config" / "families" / "owl.toml").write_text(OWL.replace("title", "titel"), "utf-8")
    for module in frameworks():
        with pytest.raises(CatalogError, match=r"owl\.toml.*titel"):
            module.OwlLLM  # noqa: B018
