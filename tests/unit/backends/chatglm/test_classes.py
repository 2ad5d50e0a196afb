"""The family's classes in both frameworks, on folders in the original layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("sentencepiece")

import local_llms
from local_llms import load_model
from tests.chatglm_files import random_prefix
from tests.glm_stories import write_original

SMALL = {"device": "cpu", "dtype": "float32", "threads": 1, "context_length": 64, "max_parallel": 4}
GREEDY = {"max_tokens": 8, "temperature": 0}
QUESTION = "Lily had a dog"


@pytest.fixture
def expected(chatglm_folder: Path) -> str:
    """What the model says by itself."""
    with load_model(chatglm_folder, template="chatglm", **SMALL) as model:
        return model.generate(QUESTION, **GREEDY).text


def test_langchain(chatglm_folder: Path, tmp_path: Path, expected: str) -> None:
    pytest.importorskip("langchain_core")
    prefix = random_prefix(tmp_path / "prefix", layers=3, heads=8, size=4)
    options: dict[str, Any] = {"model": str(chatglm_folder), **SMALL, **GREEDY}
    chat = local_llms.ChatGLM(**options)
    answer = chat.invoke(QUESTION)
    assert answer.text == expected
    # The question, [gMASK] and <sop>.
    with load_model(chatglm_folder, family="glm", **SMALL) as model:
        assert model.info.template == "chatglm"
        assert answer.usage_metadata["input_tokens"] == len(model.tokenize(QUESTION)) + 2
    assert "".join(chunk.text for chunk in chat.stream(QUESTION)) == expected
    assert local_llms.GLMLLM(**options).invoke(QUESTION) == expected
    tuned = chat.invoke(QUESTION, adapter=str(prefix)).text
    assert tuned != expected
    assert local_llms.ChatGLM(**options, adapter=str(prefix)).invoke(QUESTION).text == tuned
    assert [one.text for one in chat.batch([QUESTION] * 3)] == [expected] * 3


def test_llama_index(chatglm_folder: Path, expected: str) -> None:
    pytest.importorskip("llama_index.core")
    from local_llms.llama_index import GLMLLM

    llm = GLMLLM(model=str(chatglm_folder), **SMALL, **GREEDY)
    assert llm.complete(QUESTION).text == expected


@pytest.mark.parametrize("name", ["chatglm2", "chatglm3", "glm-4"])
def test_later_generations_bring_their_template(shared_data: Path, tmp_path: Path, name: str) -> None:
    folder = write_original(shared_data / "models" / "glm-stories", tmp_path / name, name=name)
    with load_model(folder, family="glm", **SMALL) as model:
        assert model.info.template == name.replace("-", "")
        assert model.info.architecture == "chatglm"
        assert model.info.backend_reason == "it is a folder of ChatGLM's original layout"
        answer = model.generate("Once upon a time", **GREEDY)
        assert answer.usage.completion_tokens == 8
        together = model.generate_many(["Once upon a time", "Lily's mom said", "Once upon a time"], **GREEDY)
        assert [one.token_ids for one in together][::2] == [answer.token_ids] * 2


def test_white_space_before_an_answer_is_left_out(chatglm_folder: Path) -> None:
    """The model's first tokens are made to be a newline and a space."""
    with load_model(chatglm_folder, family="glm", **SMALL) as model:
        line, space = model.tokenize("\n")[-1], model.tokenize("  ")[-1]
        forced = {"logit_bias": {line: 100.0, space: 99.0}, "frequency_penalty": 30.0}
        raw = model.generate(QUESTION, template="plain", **GREEDY, **forced)
        trimmed = model.generate(QUESTION, **GREEDY, **forced)
    assert raw.text.startswith("\n")
    assert trimmed.token_ids[0] == line
    assert trimmed.text == trimmed.text.lstrip()
