"""Whoever listens to llama-index hears of each call once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import instrumentation
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, CBEventType, TokenCountingHandler
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.prompts import PromptTemplate
from llama_index.core.rate_limiter import BaseRateLimiter

from local_llms.callbacks import TokenCallback
from local_llms.errors import CallbackError, ContextOverflow
from local_llms.llama_index import LocalEmbedding, LocalLLM
from local_llms.types import Completion, TokenEvent

QUESTION = [ChatMessage(content="Who are you?")]
FORMS = ["complete", "acomplete", "stream_complete", "astream_complete", "chat", "achat", "stream_chat", "astream_chat"]


class Counting(BaseCallbackHandler):
    """Counts the starts and ends of callback events."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.starts: Counter[CBEventType] = Counter()
        self.ends: Counter[CBEventType] = Counter()

    def on_event_start(self, event_type: CBEventType, *args: Any, **kwargs: Any) -> str:
        self.starts[event_type] += 1
        return str(kwargs.get("event_id", ""))

    def on_event_end(self, event_type: CBEventType, *args: Any, **kwargs: Any) -> None:
        self.ends[event_type] += 1

    def start_trace(self, trace_id: str | None = None) -> None: ...

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None: ...


class Events(BaseEventHandler):
    """Counts instrumentation events."""

    heard: Counter[str]

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.heard[type(event).__name__] += 1


class Heard:
    def __init__(self) -> None:
        self.events = Events(heard=Counter())
        self.spans = SimpleSpanHandler()

    def span_names(self) -> list[str]:
        return sorted(span.id_.split("-")[0] for span in self.spans.completed_spans)


@pytest.fixture
def heard() -> Iterator[Heard]:
    root = instrumentation.get_dispatcher()
    before = (list(root.event_handlers), list(root.span_handlers))
    listener = Heard()
    root.add_event_handler(listener.events)
    root.add_span_handler(listener.spans)
    yield listener
    root.event_handlers, root.span_handlers = before


async def ask(llm: Any, form: str) -> None:
    what: Any = QUESTION if "chat" in form else "Who are you?"
    answer = getattr(llm, form)(what)
    if form.startswith("a"):
        answer = await answer
        if "stream" in form:
            async for _ in answer:
                pass
    elif "stream" in form:
        for _ in answer:
            pass


@pytest.mark.parametrize("form", FORMS)
async def test_one_call_is_one_event_and_one_span(scripted, heard, form):
    counting = Counting()
    llm = LocalLLM(model=scripted("abc").path, template="chatml", callback_manager=CallbackManager([counting]))
    await ask(llm, form)
    assert counting.starts == counting.ends == {CBEventType.LLM: 1}
    kind = "LLMChat" if "chat" in form else "LLMCompletion"
    expected = {f"{kind}StartEvent": 1, f"{kind}EndEvent": 1}
    if "stream" in form:
        expected[f"{kind}InProgressEvent"] = 4  # three tokens, and the end with the usage
    assert heard.events.heard == expected
    assert heard.span_names() == [f"LocalLLM.{form}"]


@pytest.mark.parametrize("form", ["predict", "apredict", "stream", "astream"])
async def test_predict_has_one_span_of_its_own(scripted, heard, form):
    llm = LocalLLM(model=scripted("abc").path, template="chatml")
    answer = getattr(llm, form)(PromptTemplate("Who?"))
    if form.startswith("a"):
        answer = await answer
    if form == "stream":
        list(answer)
    elif form == "astream":
        assert [token async for token in answer]
    inner = {"predict": "chat", "apredict": "achat", "stream": "stream_chat", "astream": "astream_chat"}[form]
    assert heard.span_names() == sorted([f"LocalLLM.{form}", f"LocalLLM.{inner}"])
    assert heard.events.heard["LLMChatEndEvent"] == 1
    assert heard.events.heard["LLMPredictStartEvent"] == 1


@pytest.mark.parametrize("form", FORMS)
async def test_tokens_are_counted_once(scripted, form):
    counter = TokenCountingHandler(tokenizer=lambda text: [0] * 1000)
    llm = LocalLLM(model=scripted("abc").path, template="chatml", callback_manager=CallbackManager([counter]))
    await ask(llm, form)
    expected = llm.complete("Who are you?").raw["usage"]
    counted = counter.llm_token_counts[0]
    assert counted.prompt_token_count == expected["prompt_tokens"]
    assert counted.completion_token_count == expected["completion_tokens"] == 4
    assert counter.total_llm_token_count == 2 * expected["total_tokens"]


def test_an_error_ends_the_event(scripted):
    counting = Counting()
    manager = CallbackManager([counting])
    llm = LocalLLM(model=scripted(context_length=32).path, template="plain", callback_manager=manager)
    with pytest.raises(ContextOverflow):
        llm.complete("x" * 64)
    with pytest.raises(ContextOverflow):
        llm.stream_complete("x" * 64)
    assert counting.starts[CBEventType.LLM] == counting.ends[CBEventType.LLM] == 2


def test_a_stream_that_is_left_ends_its_event(scripted):
    counting = Counting()
    model = scripted(None, step_seconds=0.005)
    llm = LocalLLM(model=model.path, template="plain", callback_manager=CallbackManager([counting]))
    stream = llm.stream_complete("Hi")
    next(stream)
    stream.close()
    assert counting.starts == counting.ends == {CBEventType.LLM: 1}


def test_events_carry_no_weights_and_load_nothing(scripted):
    model = scripted()
    payload = LocalLLM(model=model.path, temperature=0.5, stop="x").to_payload()
    assert payload == {
        "class_name": "LocalLLM",
        "model_name": model.path,
        "is_chat_model": True,
        "is_function_calling_model": True,
        "temperature": 0.5,
        "stop": ["x"],
    }
    assert LocalLLM().to_payload()["model_name"] == "smollm2-135m-instruct"
    assert model.loaded == []


async def test_embedding_events(scripted, heard):
    counter = TokenCountingHandler(tokenizer=list)
    counting = Counting()
    manager = CallbackManager([counter, counting])
    embedding = LocalEmbedding(model=scripted().path, callback_manager=manager, embed_batch_size=2)
    embedding.get_text_embedding_batch(["one", "two", "three"])
    await embedding.aget_query_embedding("four")
    assert counting.starts == counting.ends == {CBEventType.EMBEDDING: 3}
    assert heard.events.heard == {"EmbeddingStartEvent": 3, "EmbeddingEndEvent": 3}
    assert counter.total_embedding_token_count == len("onetwothreefour")


class Limiter(BaseRateLimiter):
    """Counts."""

    taken: int = 0

    def acquire(self) -> None:
        self.taken += 1

    async def async_acquire(self) -> None:
        self.taken += 1


async def test_the_rate_limiter_is_asked_once_a_call(scripted):
    limiter = Limiter()
    llm = LocalLLM(model=scripted().path, template="chatml", rate_limiter=limiter)
    for form in FORMS:
        await ask(llm, form)
    assert limiter.taken == len(FORMS)


class Recorder(TokenCallback):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.tokens: list[TokenEvent] = []
        self.ended: list[Completion] = []
        self.errors: list[BaseException] = []

    def on_start(self, prompt_tokens: int) -> None:
        self.started.append(prompt_tokens)

    def on_token(self, event: TokenEvent) -> None:
        self.tokens.append(event)

    def on_end(self, completion: Completion) -> None:
        self.ended.append(completion)

    def on_error(self, error: BaseException) -> None:
        self.errors.append(error)


@pytest.mark.parametrize("form", FORMS)
async def test_token_callbacks(scripted, form):
    own, of_call = Recorder(), Recorder()
    llm = LocalLLM(model=scripted("abc").path, template="chatml", token_callbacks=[own])
    await ask(llm, form)
    assert "".join(event.text for event in own.tokens) == own.ended[0].text == "abc"
    assert own.started == [own.ended[0].usage.prompt_tokens]
    assert all(event.logprob is not None for event in own.tokens)
    llm.complete("Hi", token_callbacks=[of_call])
    assert len(own.ended) == 2
    assert len(of_call.ended) == 1
    assert own.errors == of_call.errors == []


def test_a_callback_that_raises_fails_its_request_alone(scripted):
    class Broken(TokenCallback):
        def on_token(self, event: TokenEvent) -> None:
            raise RuntimeError("broken")

    llm = LocalLLM(model=scripted().path, template="chatml")
    with pytest.raises(CallbackError, match="broken"):
        llm.complete("Hi", token_callbacks=[Broken()])
    with pytest.raises(CallbackError):
        list(llm.stream_complete("Hi", token_callbacks=[Broken()]))
    assert llm.complete("Hi").text == "Hello there!"
