"""Each family of the catalog has its two classes, those of the user's own files included."""

from __future__ import annotations

import ast
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import local_llms
import local_llms.langchain as room
from local_llms.catalog import class_names
from local_llms.langchain import AlpacaLLM, ChatAlpaca, ChatLocal, ChatVicuna, LocalLLM, VicunaLLM
from tests.unit.langchain.conftest import ANSWER, text

FAMILY = """
name = "robin"
title = "Robin"
default_template = "robin"

[classes]
llm = "RobinLLM"
chat = "ChatRobin"

[[templates]]
name = "robin"
source = '''
{%- for message in messages %}[{{ message.role }}] {{ message.content }} {% endfor %}[robin]'''
stop = ["good"]
"""


@pytest.fixture
def robin(tmp_path, monkeypatch):
    """A family that the user has added."""
    folder = tmp_path / "config" / "families"
    folder.mkdir(parents=True)
    (folder / "robin.toml").write_text(FAMILY)
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("cls", "base", "family"),
    [
        (AlpacaLLM, LocalLLM, "alpaca"),
        (ChatAlpaca, ChatLocal, "alpaca"),
        (VicunaLLM, LocalLLM, "vicuna"),
        (ChatVicuna, ChatLocal, "vicuna"),
    ],
)
def test_a_family_class(scripted, cls, base, family):
    assert issubclass(cls, base)
    assert cls.family == family
    assert cls.__module__ == "local_llms.langchain"
    assert (cls.__name__, cls.__qualname__) == (cls.__name__, cls.__name__)
    assert getattr(room, cls.__name__) is getattr(local_llms, cls.__name__) is cls
    assert pickle.loads(pickle.dumps(cls)) is cls
    assert cls.__doc__
    llm = cls(model=scripted())
    assert text(llm.invoke("Hi")) == ANSWER
    assert llm.loaded().info.template.startswith(family)
    assert llm.asdict()["family"] == family


def test_a_family_class_takes_its_format_for_any_file(scripted):
    model = scripted()
    assert "### Instruction:\nHi" in ChatAlpaca(model=model).loaded().render("Hi")
    assert "USER: Hi ASSISTANT:" in VicunaLLM(model=model).loaded().render("Hi")
    assert "<|im_start|>user\nHi" in ChatLocal(model=model).loaded().render("Hi")


def test_a_family_of_the_users_own(scripted, robin):
    from local_llms import ChatRobin, RobinLLM

    model = scripted("very good indeed")
    for cls in (ChatRobin, RobinLLM):
        llm = cls(model=model)
        assert text(llm.invoke("Hi")) == "very "
        assert llm.loaded().render("Hi") == "[user] Hi [robin]"
        assert text(pickle.loads(pickle.dumps(llm)).invoke("Hi")) == "very "
        assert cls.__name__ in dir(room)
        assert cls.__name__ in dir(local_llms)


def test_a_family_that_is_gone(robin, monkeypatch, tmp_path):
    assert room.RobinLLM.family == "robin"
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(tmp_path / "other"))
    with pytest.raises(AttributeError, match="RobinLLM"):
        room.RobinLLM  # noqa: B018


def test_a_name_that_does_not_exist():
    for module in (room, local_llms):
        with pytest.raises(AttributeError, match="Did you mean 'ChatAlpaca'"):
            module.ChatAlpacca  # noqa: B018
        with pytest.raises(ImportError):
            exec(f"from {module.__name__} import Nothing")


def mirrored(module) -> dict[str, list[str]]:
    """Names that type checkers are told of in a module, and the bases of those that are classes."""
    tree = ast.parse(inspect.getsource(module))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    names: dict[str, list[str]] = {}
    for node in block.body:
        if isinstance(node, ast.ImportFrom):
            names.update({alias.asname or alias.name: [] for alias in node.names})
        elif isinstance(node, ast.ClassDef):
            names[node.name] = [ast.unparse(base) for base in node.bases]
        elif isinstance(node, ast.AnnAssign):
            names[ast.unparse(node.target)] = []
    return names


def test_type_checkers_know_the_classes():
    names = mirrored(room)
    assert {"ChatLocal", "LocalLLM", "LocalEmbeddings", "AlpacaLLM", "ChatAlpaca", "VicunaLLM", "ChatVicuna"} <= set(
        names
    )
    for name, bases in names.items():
        cls = getattr(room, name)
        assert cls.__name__ == name
        assert [base.__name__ for base in cls.__bases__ if bases] == bases


def test_type_checkers_know_the_public_names():
    assert set(mirrored(local_llms)) == set(local_llms.__all__)
    families = {name for name in local_llms.__all__ if name in class_names()}
    assert families == {name for name, bases in mirrored(room).items() if bases}


def run(code: str) -> str:
    root = Path(local_llms.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'llama_cpp', 'langchain', 'langchain_core', 'llama_index', 'numpy', 'pydantic'}"
    assert run(f"import sys, local_llms; print({heavy} & set(sys.modules))").strip() == "set()"
    frameworks = "{'torch', 'transformers', 'llama_cpp', 'langchain_core', 'llama_index'}"
    assert run(f"import sys, local_llms.langchain; print({frameworks} & set(sys.modules))").strip() == "set()"
    code = "import sys; from local_llms import ChatLocal; ChatLocal()"
    others = "{'torch', 'transformers', 'llama_cpp', 'llama_index', 'langchain'}"
    assert run(f"{code}; print({others} & set(sys.modules))").strip() == "set()"


def test_importing_is_quick():
    # Time of the processor, not of the wall: other processes do not count.
    code = "import time; start = time.process_time(); import local_llms; print(time.process_time() - start)"
    assert min(float(run(code)) for _ in range(3)) < 0.15


def test_without_langchain():
    code = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "langchain_core":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from local_llms.errors import MissingDependency
import local_llms.langchain
for name in ("ChatLocal", "LocalLLM", "LocalEmbeddings", "AlpacaLLM"):
    for module in ("local_llms", "local_llms.langchain"):
        try:
            exec(f"from {module} import {name}")
        except MissingDependency as error:
            print(error)
"""
    assert (
        run(code).splitlines()
        == ['local_llms.langchain needs the library langchain-core: pip install "local-llms[langchain]"'] * 8
    )
