"""LangChain's callbacks and this package's hear of everything once; caches and rate limiters are heeded."""

from __future__ import annotations

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.rate_limiters import BaseRateLimiter

from local_llms.callbacks import TokenCallback
from local_llms.errors import CallbackError, DeadlineExceeded
from local_llms.langchain import ChatLocal, LocalLLM
from local_llms.testing.scripted import echo_script
from tests.unit.langchain.conftest import ANSWER, text


class Handler(BaseCallbackHandler):
    """Counts what LangChain tells."""

    def __init__(self):
        self.tokens, self.starts, self.ends, self.errors = [], [], [], []

    def on_llm_start(self, serialized, prompts, **told):
        self.starts.append((prompts, told))

    def on_chat_model_start(self, serialized, messages, **told):
        self.starts.append((messages, told))

    def on_llm_new_token(self, token, *, chunk=None, **told):
        self.tokens.append((token, chunk))

    def on_llm_end(self, response, **told):
        self.ends.append(response)

    def on_llm_error(self, error, **told):
        self.errors.append(error)


class AsyncHandler(AsyncCallbackHandler, Handler):
    """The same, awaited."""

    async def on_llm_start(self, *args, **told):
        Handler.on_llm_start(self, *args, **told)

    async def on_chat_model_start(self, *args, **told):
        Handler.on_chat_model_start(self, *args, **told)

    async def on_llm_new_token(self, *args, **told):
        Handler.on_llm_new_token(self, *args, **told)

    async def on_llm_end(self, *args, **told):
        Handler.on_llm_end(self, *args, **told)

    async def on_llm_error(self, *args, **told):
        Handler.on_llm_error(self, *args, **told)


class Recorder(TokenCallback):
    """Keeps what this package tells."""

    def __init__(self):
        self.log, self.tokens = [], []

    def on_start(self, prompt_tokens):
        self.log.append(("start", prompt_tokens))

    def on_token(self, event):
        self.tokens.append(event)

    def on_end(self, completion):
        self.log.append(("end", completion))

    def on_error(self, error):
        self.log.append(("error", error))

    def check(self):
        assert [name for name, _ in self.log] == ["start", "end"]
        assert "".join(event.text for event in self.tokens) == ANSWER
        assert [event.index for event in self.tokens] == list(range(len(ANSWER) + 1))
        assert all(event.logprob < 0 for event in self.tokens)
        assert self.log[1][1].usage.completion_tokens == len(ANSWER) + 1


def check_stream_heard(handler, kind):
    tokens = [token for token, _ in handler.tokens if token]
    assert "".join(tokens) == ANSWER
    assert len(tokens) == len(ANSWER)
    assert [text(chunk) for _, chunk in handler.tokens] == [token for token, _ in handler.tokens]
    # LangChain itself tells of a chat model's last chunk, which has no text.
    assert len(handler.tokens) == len(ANSWER) + (kind is ChatLocal)
    assert (len(handler.starts), len(handler.ends), handler.errors) == (1, 1, [])
    assert handler.ends[0].generations[0][0].text == ANSWER


def test_tokens_of_a_stream_are_told_once(scripted, kind):
    handler = Handler()
    list(kind(model=scripted()).stream("Hi", config={"callbacks": [handler]}))
    check_stream_heard(handler, kind)


async def test_tokens_of_an_async_stream_are_told_once(scripted, kind):
    handler = AsyncHandler()
    async for _ in kind(model=scripted()).astream("Hi", config={"callbacks": [handler]}):
        pass
    check_stream_heard(handler, kind)


async def test_streaming_tells_the_tokens_of_an_invoke(scripted):
    handler, silent = Handler(), Handler()
    llm = ChatLocal(model=scripted(), streaming=True)
    assert llm.invoke("Hi", config={"callbacks": [handler]}).text == ANSWER
    check_stream_heard(handler, ChatLocal)
    assert (await llm.ainvoke("Hi")).usage_metadata["output_tokens"] == len(ANSWER) + 1
    ChatLocal(model=scripted()).invoke("Hi", config={"callbacks": [silent]})
    assert silent.tokens == []


async def test_events(scripted, kind):
    events = [event async for event in kind(model=scripted()).astream_events("Hi", version="v2")]
    names = [event["event"].removeprefix("on_chat_model_").removeprefix("on_llm_") for event in events]
    assert (names[0], names[-1]) == ("start", "end")
    assert names.count("start") == names.count("end") == 1
    streamed = [text(event["data"]["chunk"]) for event in events if event["event"].endswith("_stream")]
    assert "".join(streamed) == ANSWER


@pytest.mark.filterwarnings("ignore:.*v3.*")
def test_content_block_events(scripted):
    stream = ChatLocal(model=scripted()).stream_events("Hi", version="v3")
    deltas = [event for event in stream if event["event"] == "content-block-delta"]
    assert len(deltas) == len(ANSWER)
    assert stream.output.text == ANSWER
    assert stream.output.usage_metadata["output_tokens"] == len(ANSWER) + 1


def test_callbacks_hear_of_options(scripted, kind):
    handler = Handler()
    kind(model=scripted(), temperature=0.5).invoke("Hi", stop=["x"], config={"callbacks": [handler]})
    told = handler.starts[0][1]
    assert told["invocation_params"]["temperature"] == 0.5
    assert told["invocation_params"]["stop"] == ["x"]
    assert told["options"]["stop"] == ["x"]


def test_callbacks_hear_of_errors(scripted, kind):
    handler = Handler()
    with pytest.raises(DeadlineExceeded):
        kind(model=scripted(step_seconds=0.05), timeout=0.06).invoke("Hi", config={"callbacks": [handler]})
    assert [type(error) for error in handler.errors] == [DeadlineExceeded]
    assert handler.ends == []


def test_usage_is_counted_once(scripted):
    handler = UsageMetadataCallbackHandler()
    model = scripted()
    llm = ChatLocal(model=model)
    llm.invoke("Hi", config={"callbacks": [handler]})
    list(llm.stream("Hi", config={"callbacks": [handler]}))
    llm.batch(["Hi", "Hi"], config={"callbacks": [handler]})
    assert handler.usage_metadata[model.path]["output_tokens"] == 4 * (len(ANSWER) + 1)


async def test_token_callbacks(scripted, kind):
    llm = kind(model=scripted())
    for way in ("invoke", "stream", "ainvoke", "astream", "batch"):
        recorder = Recorder()
        if way == "invoke":
            llm.invoke("Hi", token_callbacks=[recorder])
        elif way == "stream":
            list(llm.stream("Hi", token_callbacks=[recorder]))
        elif way == "ainvoke":
            await llm.ainvoke("Hi", token_callbacks=[recorder])
        elif way == "astream":
            [piece async for piece in llm.astream("Hi", token_callbacks=[recorder])]
        else:
            llm.batch(["Hi"], token_callbacks=[recorder])
        recorder.check()


def test_token_callbacks_of_the_object_and_of_a_call(scripted, kind):
    own, other = Recorder(), Recorder()
    llm = kind(model=scripted(), token_callbacks=[own])
    llm.invoke("Hi", token_callbacks=[other], max_tokens=100)
    own.check()
    other.check()
    llm.invoke("Hi")
    assert len(own.log) == 4
    assert len(other.log) == 2


def test_token_callbacks_hear_of_a_stream_that_is_left(scripted, kind):
    recorder = Recorder()
    stream = kind(model=scripted(None, script=echo_script)).stream("Hi", token_callbacks=[recorder])
    next(stream)
    stream.close()
    assert [name for name, _ in recorder.log] == ["start", "error"]


def test_a_token_callback_that_raises(scripted, kind):
    class Broken(TokenCallback):
        def on_token(self, event):
            raise KeyError("oops")

    llm = kind(model=scripted())
    with pytest.raises(CallbackError, match="oops") as caught:
        llm.invoke("Hi", token_callbacks=[Broken()])
    assert isinstance(caught.value.__cause__, KeyError)
    assert text(llm.invoke("Hi")) == ANSWER


class Limiter(BaseRateLimiter):
    """Counts."""

    def __init__(self):
        self.asked = 0

    def acquire(self, *, blocking=True):
        self.asked += 1
        return True

    async def aacquire(self, *, blocking=True):
        return self.acquire()


async def test_a_rate_limiter(scripted):
    limiter = Limiter()
    llm = ChatLocal(model=scripted(), rate_limiter=limiter)
    llm.invoke("Hi")
    list(llm.stream("Hi"))
    await llm.ainvoke("Hi")
    [piece async for piece in llm.astream("Hi")]
    llm.batch(["Hi", "Hi"])
    assert limiter.asked == 6


def finished(llm) -> int:
    return llm.loaded().stats().finished


async def test_a_cache_answers(scripted, kind):
    llm = kind(model=scripted(), cache=InMemoryCache())
    first = text(llm.invoke("Hi"))
    assert text(llm.invoke("Hi")) == text(await llm.ainvoke("Hi")) == first
    assert [text(answer) for answer in llm.batch(["Hi", "Hi"])] == [first, first]
    assert finished(llm) == 1
    llm.invoke("Hello")
    assert finished(llm) == 2


def test_a_cache_for_all(scripted, kind):
    set_llm_cache(InMemoryCache())
    try:
        model = scripted()
        kind(model=model).invoke("Hi")
        kind(model=model).invoke("Hi")
        assert finished(kind(model=model)) <= 1
        kind(model=model, cache=False).invoke("Hi")
    finally:
        set_llm_cache(None)


DIFFERENT = [
    {"temperature": 0.5},
    {"max_tokens": 3},
    {"stop": ["world"]},
    {"seed": 5},
    {"logit_bias": {104: 1.0}},
    {"input_text": "x"},
    {"template": "plain"},
]


@pytest.mark.parametrize("options", DIFFERENT, ids=str)
def test_a_cache_tells_options_apart(scripted, kind, options):
    model, cache = scripted(), InMemoryCache()
    llm = kind(model=model, cache=cache, template="alpaca")
    llm.invoke("Hi")
    llm.invoke("Hi", **options)
    assert finished(llm) == 2, "those of a call"
    changed = llm.model_copy(update={"max_tokens": 7})
    changed.invoke("Hi")
    assert finished(llm) == 3, "those of a copy"
    kind(model=model, cache=cache, top_k=5, **{"template": "alpaca", **options}).invoke("Hi")
    assert finished(llm) == 4, "those of another object"
    llm.invoke("Hi")
    llm.invoke("Hi", **options)
    assert finished(llm) == 4, "and knows them again"


def test_a_cache_tells_models_apart(scripted, kind):
    one, two = scripted("one", name="one"), scripted("two", name="two")
    llm = kind(model=one, cache=InMemoryCache())
    assert [text(llm.invoke("Hi")), text(llm.invoke("Hi", model=two.path)), text(llm.invoke("Hi"))] == [
        "one",
        "two",
        "one",
    ]


def test_a_cache_does_not_mind_who_listens(scripted, kind):
    llm = kind(model=scripted(), cache=InMemoryCache())
    listeners = [Recorder(), Recorder()]
    for listener in listeners:
        llm.invoke("Hi", token_callbacks=[listener])
    assert finished(llm) == 1


async def test_a_cache_knows_the_objects_own_stop_strings(scripted, kind):
    model, cache = scripted(), InMemoryCache()
    assert text(kind(model=model, cache=cache).invoke("Hi")) == ANSWER
    llm = kind(model=model, cache=cache, stop=["world"])
    assert text(llm.invoke("Hi")) == text(await llm.ainvoke("Hi")) == text(llm.batch(["Hi"])[0]) == "Hello, "


def test_an_llm_heard_within_generate(scripted):
    handler = Handler()
    LocalLLM(model=scripted()).batch(["Hi", "Ho"], config={"callbacks": [handler]})
    assert (len(handler.starts), len(handler.ends)) == (2, 2)
