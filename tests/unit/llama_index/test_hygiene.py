"""What importing costs, what happens without llama-index, and that nothing is fetched behind the user's back."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from llama_index.core import Document, Settings
from llama_index.core.callbacks import TokenCountingHandler
from llama_index.core.node_parser import SentenceSplitter

from local_llms.llama_index import LocalLLM


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_room_imports_llama_index_at_the_first_use():
    code = (
        "import sys, local_llms.llama_index as room; dir(room); "
        "heavy = {'llama_index', 'llama_index.core', 'llama_cpp', 'langchain_core', 'torch'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert run(code).strip() == "[]"


def test_neither_langchain_nor_a_model_library_is_imported():
    code = (
        "import sys; from local_llms.llama_index import AlpacaLLM, LocalEmbedding; AlpacaLLM(); LocalEmbedding(); "
        "print(sorted({'langchain_core', 'langchain', 'llama_cpp', 'torch', 'transformers'} & set(sys.modules)))"
    )
    assert run(code).strip() == "[]"


@pytest.mark.parametrize("hidden", ["llama_index", "llama_index.core"])
@pytest.mark.parametrize("name", ["LocalLLM", "AlpacaLLM", "LocalEmbedding"])
def test_without_llama_index_the_pip_line_is_given(hidden, name):
    code = f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
import local_llms.llama_index
from local_llms.errors import MissingDependency
try:
    from local_llms.llama_index import {name}
except MissingDependency as error:
    print(error)
"""
    assert 'llama-index-core: pip install "local-llms[llama-index]"' in run(code)


def test_an_import_bug_of_our_own_is_not_hidden():
    code = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "local_llms.adapter":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
from local_llms.errors import MissingDependency
try:
    from local_llms.llama_index import LocalLLM
except MissingDependency:
    print("hidden")
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert run(code).strip() == "local_llms.adapter"


@pytest.fixture
def offline(monkeypatch):
    """No socket can be opened."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def fresh_tokenizer(monkeypatch):
    """llama-index has chosen no tokenizer yet."""
    import llama_index.core

    monkeypatch.setattr(llama_index.core, "global_tokenizer", None)


@pytest.mark.usefixtures("offline", "fresh_tokenizer")
def test_llama_index_itself_downloads_nothing():
    nodes = SentenceSplitter(chunk_size=32, chunk_overlap=0).get_nodes_from_documents([Document(text="A word. " * 50)])
    assert len(nodes) > 1
    assert TokenCountingHandler().tokenizer("one two") == Settings.tokenizer("one two")


@pytest.mark.usefixtures("offline", "fresh_tokenizer")
def test_the_models_tokenizer_can_be_llama_indexs(scripted):
    llm = LocalLLM(model=scripted().path)
    Settings.tokenizer = llm.tokenize
    assert TokenCountingHandler().tokenizer("one two") == list(b"one two")
