"""Predictions, calls with tools and errors are told exactly once too, whichever way they are asked for."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from llama_index.core import PromptHelper
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, CBEventType
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from local_llms.errors import ContextOverflow, DeadlineExceeded
from local_llms.llama_index import LocalLLM
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model
from tests.unit.llama_index.test_events import FORMS, Counting, Heard, heard

__all__ = ["heard"]


class Person(BaseModel):
    """A person."""

    name: str


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@contextmanager
def model(said: str, **options: Any) -> Iterator[tuple[LocalLLM, Counting]]:
    loading = {name: options.pop(name) for name in ("context_length", "step_seconds") if name in options}
    counting = Counting()
    with scripted_model(lambda: ScriptedBackend(say(said), **{"context_length": 4096, **loading})) as made:
        manager = CallbackManager([counting])
        yield LocalLLM(model=made.path, template="chatml", temperature=0, callback_manager=manager, **options), counting


async def use_up(answer: Any) -> None:
    if inspect.iscoroutine(answer):
        answer = await answer
    if hasattr(answer, "__aiter__"):
        async for _ in answer:
            pass
    elif inspect.isgenerator(answer):
        list(answer)


@pytest.mark.parametrize("form", ["", "a", "stream_", "astream_"])
async def test_a_structured_prediction(heard: Heard, form: str) -> None:
    with model('{"name": "Ann"}') as (llm, counting):
        await use_up(getattr(llm, f"{form}structured_predict")(Person, PromptTemplate("Who?")))
        assert counting.starts == counting.ends == {CBEventType.LLM: 1}
        ends = {name: count for name, count in heard.events.heard.items() if "InProgress" not in name}
        kinds = (
            "LLMStructuredPredictStartEvent",
            "LLMStructuredPredictEndEvent",
            "LLMChatStartEvent",
            "LLMChatEndEvent",
        )
        assert ends == dict.fromkeys(kinds, 1)
        assert heard.span_names() == [f"LocalLLM.{form}chat", f"LocalLLM.{form}structured_predict"]


@pytest.mark.parametrize("form", ["", "a", "stream_", "astream_"])
async def test_a_call_with_tools(heard: Heard, form: str) -> None:
    with model("No.", max_tokens=900) as (llm, counting):
        tools = [FunctionTool.from_defaults(add)]
        await use_up(getattr(llm, f"{form}chat_with_tools")(tools, user_msg="2 + 5?", tool_required=True))
        assert counting.starts == counting.ends == {CBEventType.LLM: 1}
        assert heard.events.heard["LLMChatStartEvent"] == heard.events.heard["LLMChatEndEvent"] == 1
        assert f"LocalLLM.{form}chat" in heard.span_names()


@pytest.mark.parametrize("form", FORMS)
async def test_an_error_before_the_answer(heard: Heard, form: str) -> None:
    with model("Hello", context_length=64) as (llm, counting):
        long = "x" * 100
        with pytest.raises(ContextOverflow):
            await use_up(getattr(llm, form)([ChatMessage(content=long)] if "chat" in form else long))
        assert counting.starts[CBEventType.LLM] == counting.ends[CBEventType.LLM] == 1
        kind = "LLMChat" if "chat" in form else "LLMCompletion"
        assert heard.events.heard == {f"{kind}StartEvent": 1, "SpanDropEvent": 1}
        assert [span.id_.split("-")[0] for span in heard.spans.dropped_spans] == [f"LocalLLM.{form}"]
        assert not heard.spans.open_spans


@pytest.mark.parametrize("form", FORMS)
async def test_an_error_in_the_middle_of_an_answer(heard: Heard, form: str) -> None:
    with model("Hello" * 50, step_seconds=0.05, timeout=0.12) as (llm, counting):
        with pytest.raises(DeadlineExceeded):
            await use_up(getattr(llm, form)([ChatMessage(content="Hi")] if "chat" in form else "Hi"))
        assert counting.starts[CBEventType.LLM] == counting.ends[CBEventType.LLM] == 1
        kind = "LLMChat" if "chat" in form else "LLMCompletion"
        heard.events.heard.pop(f"{kind}InProgressEvent", None)
        last = "ExceptionEvent" if "stream" in form else "SpanDropEvent"
        assert heard.events.heard == {f"{kind}StartEvent": 1, last: 1}
        ended = [*heard.spans.dropped_spans, *heard.spans.completed_spans]
        assert [span.id_.split("-")[0] for span in ended] == [f"LocalLLM.{form}"]
        assert not heard.spans.open_spans


def test_what_the_prompt_helper_leaves_fits_and_fills_the_window() -> None:
    """A text that it cut to size is taken with room for the answer; one that it would cut more wastes the window."""
    with model("Yes.", context_length=1000, max_tokens=200) as (llm, _):
        helper = PromptHelper.from_llm_metadata(llm.metadata, tokenizer=llm.tokenize)
        prompt = PromptTemplate("About this: {text}")
        (cut,) = helper.truncate(prompt, ["word " * 1000], llm=llm)
        answer = llm.complete(prompt.format(text=cut))
        template = len("user\n\nassistant\n") + 4
        used = answer.raw["usage"]["prompt_tokens"] - template
        assert 750 <= used <= 1000 - 200
        assert answer.raw["finish_reason"] == "stop"
