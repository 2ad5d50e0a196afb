"""One class per family of the catalog."""

from __future__ import annotations

import ast
import inspect
import pickle

import pytest

import local_llms.llama_index as room
from local_llms.catalog import class_names, find_family
from local_llms.llama_index import AlpacaLLM, LocalLLM, VicunaLLM


@pytest.mark.parametrize("name", [name for name, (_, kind) in class_names().items() if kind == "llm"])
def test_a_class_per_family(name):
    kind = getattr(room, name)
    family, _ = class_names()[name]
    assert issubclass(kind, LocalLLM)
    assert kind.family == family
    assert kind.class_name() == kind.__name__ == kind.__qualname__ == name
    assert kind.__module__ == "local_llms.llama_index"
    assert find_family(family).title in kind.__doc__
    assert name in dir(room)
    assert getattr(room, name) is kind
    twin = pickle.loads(pickle.dumps(kind(model="a/b.gguf")))
    assert type(twin) is kind


def test_the_mirror_for_editors_is_the_catalog():
    tree = ast.parse(inspect.getsource(room))
    (mirror,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    classes = {node.name: ast.unparse(node.bases[0]) for node in mirror.body if isinstance(node, ast.ClassDef)}
    assert classes == {name: "LocalLLM" for name, (_, kind) in class_names().items() if kind == "llm"}
    imported = {name.name for node in mirror.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert imported == set(room._HOMES)


def test_a_family_keeps_its_format_for_any_file(scripted):
    alpaca, vicuna = scripted(), scripted()
    AlpacaLLM(model=alpaca.path).complete("Hi")
    VicunaLLM(model=vicuna.path).complete("Hi")
    assert "### Instruction:\nHi" in alpaca.prompts[0]
    assert "USER: Hi" in vicuna.prompts[0]


def test_a_family_without_a_default_model_says_so():
    with pytest.raises(LookupError, match="alpaca"):
        AlpacaLLM().complete("Hi")


def test_an_unknown_class_names_the_nearest():
    with pytest.raises(AttributeError, match="'AlpacaLLM'"):
        room.AlpakaLLM  # noqa: B018
    with pytest.raises(AttributeError):
        room.ChatAlpaca  # noqa: B018
