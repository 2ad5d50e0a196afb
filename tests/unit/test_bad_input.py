"""Every kind of bad input, through every door: one error of ours that says what to do, and the engine serves on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_llms import ChatLocal, LocalEmbeddings, LocalLLM, TokenCallback, load_model
from local_llms import llama_index as for_llama_index
from local_llms.errors import (
    CallbackError,
    ContextOverflow,
    EmptyPrompt,
    EngineClosed,
    LocalLLMError,
    MissingDependency,
    ModelFileError,
    ModelNotFound,
    OptionError,
    TemplateError,
    UnknownOption,
)
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import ScriptedModel, scripted_model
from tests.unit.backends.tiny_gguf import write_llama

ANSWER = "Hello there!"
ROOT = Path(__file__).resolve().parents[2]

Ask = Callable[..., str]
"""``ask(model, prompt, **options)``: options of loading and of the call alike."""


def by_load_model(model: Any, prompt: str, **options: Any) -> str:
    loading = {name: options.pop(name) for name in ("context_length", "backend", "contxt_length") if name in options}
    with load_model(model, **loading) as loaded:
        return loaded.generate(prompt, **options).text


def by_chat_local(model: Any, prompt: str, **options: Any) -> str:
    with ChatLocal(model=model, **options) as chat:
        return str(chat.invoke(prompt).text)


def by_local_llm(model: Any, prompt: str, **options: Any) -> str:
    with LocalLLM(model=model, **options) as llm:
        return llm.invoke(prompt)


def by_llama_index(model: Any, prompt: str, **options: Any) -> str:
    with for_llama_index.LocalLLM(model=model, **options) as llm:
        return llm.complete(prompt).text


DOORS = [by_load_model, by_chat_local, by_local_llm, by_llama_index]


@pytest.fixture(params=DOORS, ids=lambda door: door.__name__)
def ask(request: pytest.FixtureRequest) -> Ask:
    door: Ask = request.param
    return door


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    """A model that somebody else holds all the time, and that must serve after whatever happens."""
    with (
        scripted_model(lambda: ScriptedBackend(say(ANSWER), context_length=400)) as made,
        load_model(made) as held,
    ):
        yield made
        assert held.generate("Are you there?").text == ANSWER
        assert len(made.backends) == 1
        assert held.stats().running == held.stats().waiting == 0


def fails(error: type[LocalLLMError], ask: Ask, model: Any, prompt: str = "Hi", **options: Any) -> str:
    with pytest.raises(error) as caught:
        ask(model, prompt, **options)
    return str(caught.value)


def test_unknown_model(ask: Ask) -> None:
    assert "'smollm2-135m-instruct'" in fails(ModelNotFound, ask, "smolm2-135m-instruct")


def test_unknown_option(ask: Ask, model: ScriptedModel) -> None:
    assert "'temperature'" in fails(UnknownOption, ask, model, temprature=0.5)
    assert "'context_length'" in fails(UnknownOption, ask, model, contxt_length=64)


def test_unknown_names(ask: Ask, model: ScriptedModel) -> None:
    assert "'llama_cpp'" in fails(OptionError, ask, model, backend="lama_cpp")
    assert "'chatml'" in fails(ModelNotFound, ask, model, template="chatmll")


@pytest.mark.parametrize("max_tokens", [0, -1, 1.5, "many"])
def test_max_tokens(ask: Ask, model: ScriptedModel, max_tokens: Any) -> None:
    assert f"max_tokens={max_tokens!r}" in fails(OptionError, ask, model, max_tokens=max_tokens)


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1}, {"top_p": 0}, {"top_p": 2}, {"seed": -1}, {"stop": [""]}, {"timeout": 0}, {"top_k": -3}],
    ids=str,
)
def test_impossible_values(ask: Ask, model: ScriptedModel, options: dict[str, Any]) -> None:
    assert next(iter(options)) in fails(OptionError, ask, model, **options)


def test_empty_prompt(ask: Ask, model: ScriptedModel) -> None:
    assert "no text" in fails(EmptyPrompt, ask, model, "")


def test_prompt_longer_than_the_context(ask: Ask, model: ScriptedModel) -> None:
    with pytest.raises(ContextOverflow) as caught:
        ask(model, "word " * 100)
    assert caught.value.context_length == 400
    assert caught.value.prompt_tokens > 500
    assert str(caught.value.prompt_tokens) in str(caught.value)
    assert "400" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('two turns only') }}", "two turns only"),
        ("{{ 1 / 0 }}", "zero"),
        ("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", ""),
        ("{{ 'x' * 1000000000 }}", ""),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ""),
        ("{{ messages[0].content.__class__.__mro__ }}", ""),
        ("{% if %}", ""),
    ],
)
def test_a_template_that_does_harm(
    ask: Ask, model: ScriptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    folder = tmp_path / "config" / "families"
    folder.mkdir(parents=True)
    (folder / "bad.toml").write_text(
        f"name = 'bad'\ntitle = 'Bad'\n[[templates]]\nname = 'bad'\nsource = \"\"\"{source}\"\"\"\n", "utf-8"
    )
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(tmp_path))
    text = fails(TemplateError, ask, model, template="bad")
    assert "'bad'" in text
    assert words in text


class Raises(TokenCallback):
    """Raises in one of its methods."""

    def __init__(self, method: str) -> None:
        def fail(value: object) -> None:
            raise RuntimeError("a bug of the caller")

        setattr(self, method, fail)


@pytest.mark.parametrize("method", ["on_start", "on_token", "on_end"])
def test_a_callback_that_raises(ask: Ask, model: ScriptedModel, method: str) -> None:
    with pytest.raises(CallbackError) as caught:
        ask(model, "Hi", token_callbacks=[Raises(method)])
    assert "a bug of the caller" in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_use_after_close(model: ScriptedModel) -> None:
    loaded = load_model(model)
    chat, llm = ChatLocal(model=model), for_llama_index.LocalLLM(model=model)
    chat.invoke("Hi")
    llm.complete("Hi")
    for thing in (loaded, chat, llm):
        thing.close()
        thing.close()
    for call in (lambda: loaded.generate("Hi"), lambda: chat.invoke("Hi"), lambda: llm.complete("Hi")):
        with pytest.raises(EngineClosed):
            call()
    for call in (loaded.stats, lambda: loaded.tokenize("Hi"), lambda: loaded.embed(["Hi"])):
        with pytest.raises(EngineClosed):
            call()


def files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Kind → a bad file, and what its error must say."""
    sound = write_llama(folder / "sound.gguf").read_bytes()
    contents = {
        "empty": (b"", "empty"),
        "random": (bytes((number * 167 + number // 7) % 256 for number in range(5000)), ""),
        "cut in the header": (sound[: len(sound) // 200], ""),
        "cut in the weights": (sound[:-1000], ""),
        "a wrong version": (sound[:4] + b"\xff\xff\xff\x7f" + sound[8:], "version"),
        "absurd counts": (sound[:8] + b"\xff" * 16 + sound[24:], ""),
    }
    found = {}
    for kind, (content, words) in contents.items():
        path = folder / f"{kind.replace(' ', '-')}.gguf"
        path.write_bytes(content)
        found[kind] = (path, words)
    (folder / "folder.gguf").mkdir()
    found["a folder"] = (folder / "folder.gguf", "folder")
    found["missing"] = (folder / "missing.gguf", "no file")
    return found


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "random",
        "cut in the header",
        "cut in the weights",
        "a wrong version",
        "absurd counts",
        "a folder",
        "missing",
    ],
)
def test_bad_files(ask: Ask, tmp_path: Path, kind: str) -> None:
    path, words = files(tmp_path)[kind]
    text = fails(ModelFileError, ask, str(path))
    assert str(path) in text
    assert words in text


def test_bad_files_for_embeddings(tmp_path: Path) -> None:
    path, _ = files(tmp_path)["cut in the weights"]
    for embed in (
        lambda: LocalEmbeddings(model=str(path)).embed_query("Hi"),
        lambda: for_llama_index.LocalEmbedding(model=str(path)).get_query_embedding("Hi"),
    ):
        with pytest.raises(ModelFileError):
            embed()


def test_a_missing_model_library(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_llama(tmp_path / "sound.gguf")
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    assert 'pip install "local-llms[llama-cpp]"' in fails(MissingDependency, ask, str(path))


@pytest.mark.parametrize(
    ("hidden", "code", "extra"),
    [
        ("langchain_core", "from local_llms import ChatLocal", "langchain"),
        ("langchain_core", "from local_llms.langchain import LocalEmbeddings", "langchain"),
        ("llama_index", "from local_llms.llama_index import LocalLLM", "llama-index"),
    ],
)
def test_a_missing_framework(hidden: str, code: str, extra: str) -> None:
    script = (
        f"import sys\nsys.modules[{hidden!r}] = None\n"
        "from local_llms.errors import MissingDependency\n"
        f"try:\n    {code}\nexcept MissingDependency as error:\n    sys.stdout.write(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f'pip install "local-llms[{extra}]"' in done.stdout


def test_the_wrong_kind_of_model(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    backend.tell(can_generate=False)
    with scripted_model(backend, template=None) as made, load_model(made) as held:
        for ask in DOORS:
            with pytest.raises(LocalLLMError, match="cannot generate text"):
                ask(made, "Hi")
        assert len(held.embed(["Hi"])[0]) == 8


FORK = """
import os, sys
from local_llms import ChatLocal, load_model
from local_llms.errors import EngineForked, LocalLLMError

model = load_model(sys.argv[1], template="plain")
chat = ChatLocal(model=sys.argv[1], template="plain", max_tokens=3)
chat.invoke("Once")
child = os.fork()
if child == 0:
    wrong = []
    calls = (lambda: model.generate("Once"), lambda: chat.invoke("Once"), lambda: model.tokenize("a"))
    for call in calls:
        try:
            call()
            wrong.append("served")
        except EngineForked as error:
            if "spawn" not in str(error):
                wrong.append(str(error))
        except BaseException as error:
            wrong.append(repr(error))
    model.close()
    with load_model(sys.argv[1], template="plain") as own:
        if own.generate("Once", max_tokens=3).usage.completion_tokens < 1:
            wrong.append("a model loaded in the child does not serve")
    sys.stderr.write("; ".join(wrong))
    sys.stderr.flush()
    os._exit(1 if wrong else 0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
served = model.generate("Once", max_tokens=3).usage.completion_tokens
sys.exit(status or (0 if served else 2))
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system has no fork")
def test_use_in_a_forked_child(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "tiny.gguf")
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(path)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
