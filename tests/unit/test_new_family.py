"""Adding a family is one file: a user's own file gives a template, models and classes in both frameworks."""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from llama_index.core.base.llms.types import ChatMessage
from typer.testing import CliRunner

import local_llms
from local_llms.catalog import list_models, registry
from local_llms.cli.main import app
from local_llms.errors import CatalogError
from local_llms.models import load_model
from local_llms.prompts import render_prompt
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


QUESTION = [{"role": "user", "content": "Who?"}]


def ask_everywhere(name: str, **options: object) -> list[str]:
    """The answers of the classes for any model, in both frameworks and without one."""
    langchain, llama_index = frameworks()
    llm = llama_index.LocalLLM(model=name, **options)
    with load_model(name, **options) as model:
        return [
            langchain.ChatLocal(model=name, **options).invoke("Who?").content,
            langchain.LocalLLM(model=name, **options).invoke("Who?"),
            llm.complete("Who?").text,
            llm.chat([ChatMessage(role="user", content="Who?")]).message.content,
            model.generate("Who?").text,
        ]


def test_a_model_by_its_name_answers_everywhere(owl, heard):
    # The family's defaults hold: eight tokens at the most.
    assert ask_everywhere("owl-tiny") == [" Hoo hoo"] * 5
    assert heard == ["<s>Day user: Who?</s>\nOwl:"] * 5


def test_its_class_takes_its_model_by_name(owl, heard):
    for module in frameworks():
        with module.OwlLLM(model="owl-tiny", max_tokens=4) as llm:
            assert llm.loaded().info.template == "owl"
            assert llm.loaded().generate("Who?").text == " Hoo hoo"
    with load_model(owl, family="owl") as model:
        assert model.info.template_reason == "it is the format of the family owl"


MINE = """
name = "mine"
title = "Models of mine"

[[models]]
name = "my-talker"
template = "alpaca"
licence = "MIT"
commercial_use = "no"
sampling = { temperature = 0.0, max_tokens = 5 }

[[models.sources]]
kind = "file"
path = "owl.scripted"
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: list[str]):
    """A model of the user's own in a format that is known: a file with neither templates nor classes."""
    folder = tmp_path / "config" / "families"
    folder.mkdir(parents=True)
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(tmp_path))

    def script(tokens):
        text = "".join(NAMES.get(token) or chr(token) for token in tokens)
        said = next((text[-length:] for length in (4, 3, 2, 1) if text.endswith("Well"[:length])), "")
        if not said:
            heard.append(text)
        return ord("Well."[len(said)])

    with scripted_model(lambda: ScriptedBackend(script, context_length=1024)) as model:
        (folder / "mine.toml").write_text(MINE.replace("owl.scripted", model.path), "utf-8")
        yield model.path


def test_a_model_of_a_known_format(mine, heard):
    assert ask_everywhere("my-talker") == ["Well."] * 5
    assert heard == ["<s>" + render_prompt("alpaca", QUESTION)] * 5


def test_a_class_of_another_family_brings_its_own_format(mine, heard):
    langchain, llama_index = frameworks()
    assert langchain.VicunaLLM(model="my-talker").invoke("Who?") == "Well."
    assert llama_index.VicunaLLM(model="my-talker").complete("Who?").text == "Well."
    assert heard == ["<s>" + render_prompt("vicuna-v1.1", QUESTION)] * 2
    heard.clear()
    assert ask_everywhere("my-talker", template="dolly") == ["Well."] * 5
    assert heard == ["<s>" + render_prompt("dolly", QUESTION)] * 5


def test_the_users_default_is_taken_where_no_model_is_named(mine, heard, tmp_path):
    file = tmp_path / "config" / "families" / "mine.toml"
    file.write_text(file.read_text("utf-8").replace('licence = "MIT"', 'licence = "MIT"\ndefault = true'), "utf-8")
    langchain, llama_index = frameworks()
    assert langchain.ChatLocal().invoke("Who?").content == "Well."
    assert llama_index.LocalLLM().complete("Who?").text == "Well."


def test_the_command_knows_them(owl):
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"})
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    assert "owl-tiny owl text 12" in run("list", "--family", "owl")
    assert "owl: the catalog says so for owl-tiny" in run("info", "owl-tiny")
    assert "owl * owl turns, system" in run("template")
    assert 'structure "Day user: " content "Who?" structure "</s>\\nOwl:"' in run("template", "owl", "Who?")
    assert run("complete", "Who?", "--model", "owl-tiny") == "Hoo hoo"


def test_an_installed_package_brings_all_of_it(owl, heard, tmp_path, monkeypatch):
    (tmp_path / "config" / "families" / "owl.toml").rename(tmp_path / "kept.toml")
    package = tmp_path / "site" / "owls_of_mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (tmp_path / "kept.toml").rename(package / "owl.toml")
    info = tmp_path / "site" / "owls_of_mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: owls-of-mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[local_llms.families]\nowls = owls_of_mine\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
        forget_packages()
        assert ask_everywhere("owl-tiny") == [" Hoo hoo"] * 5
        for module in frameworks():
            assert "OwlLLM" in dir(module)
        assert local_llms.ChatOwl(model=owl).invoke("Who?").content == " Hoo hoo"
        assert frameworks()[1].OwlLLM(model=owl).complete("Who?").text == " Hoo hoo"
    forget_packages()
    with pytest.raises(AttributeError, match="ChatOwl"):
        local_llms.ChatOwl  # noqa: B018


def forget_packages() -> None:
    registry._of_packages.cache_clear()
    registry._load.cache_clear()
