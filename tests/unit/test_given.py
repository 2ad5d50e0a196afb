"""Wrong kinds of things, where prompts, texts, lists and names are asked for: told before anything is done."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_llms import ChatLocal, LocalLLM, TokenCallback, errors, list_models, load_model
from local_llms.about import describe
from local_llms.backends import choose
from local_llms.catalog import list_adapters
from local_llms.errors import (
    AdapterError,
    ContextOverflow,
    DownloadError,
    EmptyPrompt,
    ModelFileError,
    OptionError,
    UnknownOption,
)
from local_llms.hub import kept_models, pip_download
from local_llms.models import LoadedModel
from local_llms.options import CallOptions, LoadingOptions
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model
from local_llms.types import Message, Tool

ANSWER = "Hello there!"


@pytest.fixture(scope="module")
def model() -> Iterator[LoadedModel]:
    with scripted_model(lambda: ScriptedBackend(say(ANSWER), context_length=400)) as made, load_model(made) as loaded:
        yield loaded
        assert loaded.stats().running == loaded.stats().waiting == 0


class Mute:
    """Hears of tokens, and of nothing else."""

    def on_token(self, event: object) -> None:
        raise AssertionError


WRONG: list[tuple[Any, str]] = [
    (5, "not a value of the type int"),
    (None, "not None"),
    (b"Hello", "type bytes"),
    ({"role": "user", "content": "Hello"}, "type dict"),
    (["Hello", "again"], "Message 1 is a value of the type str"),
    ([("user", "Hello")], "Message 1 is a value of the type tuple"),
    (
        [Message("user", "Hi"), {"role": "usr", "content": "Hello"}],
        "Message 2 has the role 'usr'. Did you mean 'user'?",
    ),
    ([Message("asistant", "Hi")], "Did you mean 'assistant'?"),
    ([{"role": 3, "content": "Hi"}], "has the role 3"),
    ([{"role": "user"}], "Message 1 needs text as its content, not None"),
    ([{"role": "user", "content": 7}], "not a value of the type int"),
    ([{"role": "user", "content": "Hi", "tool_calls": []}], "has 'tool_calls'"),
]


@pytest.mark.parametrize(("prompt", "words"), WRONG)
def test_no_prompt(model: LoadedModel, prompt: Any, words: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: model.generate(prompt),
        lambda: model.stream(prompt),
        lambda: model.count_tokens(prompt),
        lambda: model.render(prompt),
        lambda: asyncio.run(model.agenerate(prompt)),
        lambda: model.generate_many([prompt]),
        lambda: model.generate(prompt, tools=[Tool("look")]),
    ]
    for call in calls:
        with pytest.raises(OptionError) as caught:
            call()
        assert words in str(caught.value)


def test_a_message_may_be_a_dictionary(model: LoadedModel) -> None:
    written = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    typed = [Message("system", "Be brief."), Message("user", "Hello")]
    assert model.render(written) == model.render(typed)
    assert model.generate(written).text == ANSWER
    assert asyncio.run(model.agenerate(written, tools=[Tool("look")], tool_choice="none")).text == ANSWER


def test_no_message(model: LoadedModel) -> None:
    with pytest.raises(EmptyPrompt):
        model.generate([])


@pytest.mark.parametrize("callbacks", [print, [print], [Mute()], Mute(), TokenCallback(), [None], ["print"]])
def test_no_callbacks(model: LoadedModel, callbacks: Any) -> None:
    with pytest.raises(OptionError, match="token_callbacks= takes a list of TokenCallback objects"):
        model.generate("Hello", token_callbacks=callbacks)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model: model.generate_many("Hello"), "generate_many() takes a list"),
        (lambda model: asyncio.run(model.agenerate_many("Hello")), "generate_many() takes a list"),
        (lambda model: model.generate_many(None), "generate_many() takes a list"),
        (lambda model: model.embed("Hello"), "embed() takes a list"),
        (lambda model: asyncio.run(model.aembed("Hello")), "embed() takes a list"),
        (lambda model: model.embed(["Hello", 5]), "embed() takes a text, not a value of the type int"),
        (lambda model: model.score(5), "score() takes a text"),
        (lambda model: asyncio.run(model.ascore(None)), "score() takes a text, not None"),
        (lambda model: model.tokenize(5), "tokenize() takes a text"),
        (lambda model: model.generate("Hello", stop=3), "stop=3: input should be a valid list"),
        (lambda model: model.generate("Hello", stop=""), "stop='': a stop string must not be empty."),
        (lambda model: load_model(5), "load_model() takes the name of a model or a path"),
        (lambda model: load_model(b"x.gguf"), "type bytes"),
        (lambda model: load_model(["x"]), "type list"),
        (lambda model: list_models(commercial_use="maybe"), "commercial_use='maybe': give True, False or one of"),
        (lambda model: list_adapters(commercial_use="True"), "commercial_use='True'"),
    ],
)
def test_a_wrong_kind_of_thing(model: LoadedModel, call: Callable[[Any], object], words: str) -> None:
    with pytest.raises(OptionError) as caught:
        call(model)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", sorted(errors._ELSEWHERE))
def test_what_other_libraries_call_an_option(name: str) -> None:
    here = errors._ELSEWHERE[name]
    known = {*LoadingOptions.model_fields, *CallOptions.model_fields, "model"}
    assert here in known
    assert name not in known
    with pytest.raises(UnknownOption, match=f"ChatLocal has no option '{name}'. It is called '{here}' here"):
        ChatLocal(**{name: 1})


@pytest.mark.parametrize("chat", [ChatLocal, LocalLLM])
def test_no_callbacks_of_a_chain(chat: Any) -> None:
    with pytest.raises(OptionError, match="token_callbacks= takes a list"):
        chat().invoke("Hello", token_callbacks=print)


def test_several_stop_strings_in_any_collection(model: LoadedModel) -> None:
    for stop in ("there", ["there"], ("there",), {"there"}, frozenset({"there"})):
        assert model.generate("Hello", stop=stop).text == "Hello "


def test_a_context_that_is_as_long_as_can_be_is_not_proposed_longer(model: LoadedModel) -> None:
    with pytest.raises(ContextOverflow, match="Shorten it: the model was trained with no more"):
        model.generate("word " * 90)


def test_an_adapter_that_is_no_path(model: LoadedModel, tmp_path: Path) -> None:
    missing = tmp_path / "my-lora"
    with pytest.raises(AdapterError) as caught:
        model.generate("Hello", adapter=missing)
    assert str(caught.value).startswith(f"There is no file or folder {missing}. Give")
    with pytest.raises(AdapterError, match=r"There is no adapter 'alpaca-lora-7'\. Did you mean"):
        model.generate("Hello", adapter="alpaca-lora-7")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "It is empty."),
        (("README.md",), "It has neither a config.json nor weights."),
        (("config.json",), "It has a config.json and no weights."),
        (("model.safetensors",), "It has weights and no config.json."),
        (("model.gguf",), "Give the file in it"),
    ],
)
def test_a_folder_that_is_no_model(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ModelFileError) as caught:
        choose(tmp_path, None)
    assert words in str(caught.value)


def test_a_web_page_is_not_described_as_a_model(tmp_path: Path) -> None:
    page = tmp_path / "model.gguf"
    page.write_text("<!DOCTYPE html><html><body>404</body></html>")
    with pytest.raises(ModelFileError, match="It is a web page"):
        describe(page)


def test_a_model_that_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_LLMS_HOME", str(tmp_path))
    folder = tmp_path / "cache" / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "mine.gguf").write_bytes(b"GGUF")
    (kept,) = [each for each in kept_models() if each.name == "mine"]

    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(DownloadError, match=r"The model mine cannot be removed from .*Permission denied"):
        kept.remove()
    assert (folder / "mine.gguf").is_file()


def test_of_a_traceback_of_pip_the_last_line_is_told() -> None:
    output = (
        "Looking in indexes: https://user:secret@example.org/simple\n"
        "ERROR: Exception:\nTraceback (most recent call last):\n"
        + '  File "/x/response.py", line 455, in _error_catcher\n    raise ProtocolError(e)\n' * 9
        + "urllib3.exceptions.ProtocolError: Connection broken\n"
    )
    assert pip_download._tail(output) == [
        "Looking in indexes: https://example.org/simple",
        "ERROR: Exception:",
        "urllib3.exceptions.ProtocolError: Connection broken",
    ]
