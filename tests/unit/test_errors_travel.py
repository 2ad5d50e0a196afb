"""Errors go from one process to another, with their words and what they carry."""

from __future__ import annotations

import pickle

import pytest
from langchain_core.exceptions import ContextOverflowError

from local_llms import errors
from local_llms.langchain import ChatLocal, LocalLLM
from local_llms.testing.scripted import ScriptedBackend
from local_llms.testing.scripted_model import scripted_model
from local_llms.types import Completion, Timings, Usage

CUT = Completion("a", (1,), "length", Usage(1, 1), Timings(0.0, 0.0, 1.0, 1))
MADE = [
    errors.UnknownOption("temprature", ["temperature"], "here"),
    errors.MissingDependency("torch", extra="transformers", purpose="This"),
    errors.ModelNotFound("model", "x", ["y"], "Hint."),
    errors.ContextOverflow(10, 5, "Hint."),
    errors.AnswerCut(CUT),
    errors.EngineBusy("full"),
    errors.ModelFileError("damaged"),
]


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_an_error_that_was_pickled(error: errors.LocalLLMError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)
    assert again.retryable == error.retryable


async def ask(llm: ChatLocal, form: str, text: str) -> None:
    if form == "batch":
        llm.batch([text])
    elif form == "stream":
        list(llm.stream(text))
    elif form == "astream":
        assert [piece async for piece in llm.astream(text)]
    elif form == "ainvoke":
        await llm.ainvoke(text)
    else:
        llm.invoke(text)


@pytest.mark.parametrize("kind", [ChatLocal, LocalLLM])
@pytest.mark.parametrize("form", ["invoke", "ainvoke", "stream", "astream", "batch"])
async def test_langchain_knows_a_prompt_that_does_not_fit(kind: type[ChatLocal], form: str) -> None:
    """Its middleware catches its own error, and who knows ours catches ours."""
    with scripted_model(lambda: ScriptedBackend(context_length=64), template="plain") as model:
        with pytest.raises(ContextOverflowError) as caught:
            await ask(kind(model=model.path, template="plain"), form, "x" * 100)
        assert isinstance(caught.value, errors.ContextOverflow)
        assert (caught.value.prompt_tokens, caught.value.context_length) == (101, 64)
        assert "drop_oldest" in str(caught.value)
        again = pickle.loads(pickle.dumps(caught.value))
        assert again.prompt_tokens == 101
