"""Bad input on the real model: one error of ours, and the same engine serves on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_llms import ChatLocal, LocalEmbeddings, TokenCallback, TokenEvent
from local_llms.errors import (
    CallbackError,
    ContextOverflow,
    DeadlineExceeded,
    EmptyPrompt,
    LocalLLMError,
    ModelFileError,
    ModelNotFound,
    OptionError,
    TemplateError,
    UnsupportedFeature,
)
from local_llms.llama_index import LocalLLM
from local_llms.models import LoadedModel, load_model

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def loaded() -> Iterator[LoadedModel]:
    with load_model(context_length=256) as model:
        yield model


@pytest.fixture
def model(loaded: LoadedModel) -> Iterator[LoadedModel]:
    """After each test the engine answers as before, and holds nothing of what failed."""
    before = loaded.stats()
    yield loaded
    answer = loaded.generate("How many days are in a week?", temperature=0, max_tokens=12)
    assert "7" in answer.text
    after = loaded.stats()
    assert after.running == after.waiting == 0
    assert after.finished > before.finished


class Fails(TokenCallback):
    """Raises at the third token."""

    def on_token(self, event: TokenEvent) -> None:
        if event.index == 2:
            raise ValueError("a bug of the caller")


@pytest.mark.parametrize(
    ("prompt", "options", "error"),
    [
        ("", {}, EmptyPrompt),
        ("word " * 500, {}, ContextOverflow),
        ("Hi", {"max_tokens": 0}, OptionError),
        ("Hi", {"max_tokens": -5}, OptionError),
        ("Hi", {"temperature": float("nan")}, OptionError),
        ("Hi", {"template": "no-such-template"}, ModelNotFound),
        ("Hi", {"timeout": 0.0001}, DeadlineExceeded),
        ("Hi", {"token_callbacks": [Fails()]}, CallbackError),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_call_that_is_wrong(
    model: LoadedModel, prompt: str, options: dict[str, Any], error: type[LocalLLMError]
) -> None:
    chat = ChatLocal(context_length=256)
    llm = LocalLLM(context_length=256)
    for ask in (model.generate, chat.invoke, llm.complete):
        with pytest.raises(error):
            ask(prompt, **options)


def test_a_failing_request_leaves_its_neighbours_alone(model: LoadedModel) -> None:
    expected = model.generate("Name three colours.", temperature=0, max_tokens=24).text
    stream = model.stream("Name three colours.", temperature=0, max_tokens=24)
    with pytest.raises(CallbackError):
        model.generate("Name a fruit.", max_tokens=24, token_callbacks=[Fails()])
    assert stream.result().text == expected


def test_a_template_that_refuses(model: LoadedModel) -> None:
    from local_llms.types import Message

    with pytest.raises(TemplateError):
        model.generate([Message("user", "42"), Message("system", "Late.")], template="alpaca")
    with pytest.raises(OptionError, match="nobody"):
        model.generate([Message("nobody", "42")], template="alpaca")


def test_embeddings_and_text_are_told_apart(model: LoadedModel) -> None:
    with pytest.raises(UnsupportedFeature, match="all-minilm-l6-v2"):
        model.embed(["Hi"])
    with load_model("all-minilm-l6-v2") as embedder:
        with pytest.raises(UnsupportedFeature):
            embedder.generate("Hi")
        assert len(embedder.embed(["Hi"])[0]) == 384


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.9999])
def test_a_truncated_model(model: LoadedModel, tmp_path: Path, share: float) -> None:
    content = model.info.path.read_bytes()
    path = tmp_path / "truncated.gguf"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ModelFileError):
        LocalEmbeddings(model=str(path)).embed_query("Hi")
