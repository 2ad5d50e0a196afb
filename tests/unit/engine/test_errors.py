"""What goes wrong for one request touches no other, and the engine goes on serving."""

import concurrent.futures
import logging
import threading
from collections.abc import Callable

import numpy as np
import pytest

from local_llms.callbacks import TokenCallback
from local_llms.engine import Engine
from local_llms.errors import CacheFull, CallbackError, DecodeError, EngineClosed, RequestCancelled
from local_llms.testing.scripted import ScriptedBackend
from tests.unit.engine.engine_help import alone, ask, at_once, request, wait_quiet, wait_until

BAD = ord("!")


def holds_bad(chunks) -> bool:
    return any(BAD in chunk.tokens for chunk in chunks)


@pytest.mark.parametrize("can_cut", [True, False])
def test_a_chunk_that_fails_takes_nobody_with_it(serve, can_cut: bool) -> None:
    engine = serve(fail_on=holds_bad, can_cut=can_cut, step_seconds=0.002)
    good = [ask(engine, f"good {number}", 15) for number in range(3)]
    bad = [ask(engine, "bad!", 15), ask(engine, "worse!", 15)]
    good += [ask(engine, f"good {number}", 15) for number in range(3, 6)]
    for stream in bad:
        with pytest.raises(DecodeError, match="scripted failure"):
            stream.result()
    assert [stream.result().text for stream in good] == [alone(f"good {number}", 15) for number in range(6)]
    stats = engine.stats()
    assert (stats.finished, stats.failed) == (6, 2)


def test_nothing_is_kept_of_a_request_that_failed(serve) -> None:
    engine = serve(fail_on=holds_bad, batch_tokens=8)
    with pytest.raises(DecodeError):
        ask(engine, "a long prompt with an end that fails!", 5).result()
    wait_quiet(engine)
    assert engine.backend.sequences == {}


def test_a_step_that_failed_says_nothing_about_speed(serve) -> None:
    engine = serve(fail_on=holds_bad)
    with pytest.raises(DecodeError):
        ask(engine, "a prompt that is longer than forty tokens, and fails!", 5).result()
    assert engine._worker._pace.prompt_speed == 0.0
    ask(engine, "a prompt that is longer than forty tokens, and does not fail", 5).result()
    assert engine._worker._pace.prompt_speed > 0.0


def test_all_fail_and_the_next_ones_do_not(serve) -> None:
    failing = threading.Event()
    failing.set()
    engine = serve(fail_on=lambda chunks: failing.is_set(), step_seconds=0.002)
    streams = [ask(engine, f"{number}", 5) for number in range(4)]
    for stream in streams:
        with pytest.raises(DecodeError):
            list(stream)
    failing.clear()
    assert ask(engine, "hello", 5).result().text == alone("hello", 5)


class Faulty(ScriptedBackend):
    """Does what ``fault`` says for a decode that holds a "!"."""

    fault: Callable[["Faulty"], None] = staticmethod(lambda backend: None)

    def decode(self, chunks, adapter=None):
        if holds_bad(chunks):
            type(self).fault(self)
        logits = super().decode(chunks, adapter)
        rows = iter(logits)
        for chunk in chunks:
            if chunk.logits != "none":
                row = next(rows)
                if BAD in self.sequences[chunk.sequence]:
                    row[:] = np.nan
        return logits


def test_logits_that_are_no_numbers_fail_their_request_alone(serve) -> None:
    engine = serve(kind=Faulty)
    bad = ask(engine, "bad!", 5)
    good = ask(engine, "good", 5)
    with pytest.raises(DecodeError, match="finite"):
        bad.result()
    assert good.result().text == alone("good", 5)


def test_a_refusal_of_the_backend_is_an_error_of_ours(serve) -> None:
    def refuse(backend: ScriptedBackend) -> None:
        raise ValueError("no such token")

    engine = serve(kind=type("Refusing", (Faulty,), {"fault": staticmethod(refuse)}))
    good = ask(engine, "good", 5)
    with pytest.raises(DecodeError, match="no such token") as caught:
        ask(engine, "bad!", 5).result()
    assert isinstance(caught.value.__cause__, ValueError)
    assert good.result().text == alone("good", 5)


def test_a_request_that_the_cache_cannot_hold_fails_alone(serve) -> None:
    def full(backend: ScriptedBackend) -> None:
        raise CacheFull("full")

    engine = serve(kind=type("Full", (Faulty,), {"fault": staticmethod(full)}))
    good = ask(engine, "good", 30)
    bad = ask(engine, "bad!", 5)
    with pytest.raises(CacheFull) as caught:
        bad.result()
    assert caught.value.retryable
    assert good.result().text == alone("good", 30)
    assert ask(engine, "after", 5).result().text == alone("after", 5)


def test_a_bug_ends_the_engine_and_nobody_waits_for_ever(serve, caplog: pytest.LogCaptureFixture) -> None:
    def bug(backend: ScriptedBackend) -> None:
        raise RuntimeError("a bug")

    engine = serve(kind=type("Buggy", (Faulty,), {"fault": staticmethod(bug)}), step_seconds=0.01, max_parallel=2)
    with at_once(engine):
        streams = [ask(engine, text, 50) for text in ("good", "bad!", "waiting")]
        future = engine.embed([[1]] * 1000)
    for stream in streams:
        with pytest.raises(DecodeError, match="RuntimeError: a bug") as caught:
            stream.result()
        assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(DecodeError):
        future.result(timeout=20)
    engine._worker._thread.join(20)
    assert engine.closed
    with pytest.raises(EngineClosed):
        ask(engine)
    with pytest.raises(EngineClosed):
        engine.backend.tokenize("the backend was closed too")
    assert "unexpected" in caplog.text
    caplog.clear()


class Breaking(TokenCallback):
    """Raises in one of its methods, once, and writes down what it heard."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.heard: list[str] = []

    def hear(self, what: str) -> None:
        self.heard.append(what)
        if self.heard.count(self.where) == 1 and what == self.where:
            raise KeyError("broken")

    def on_start(self, prompt_tokens: int) -> None:
        self.hear("start")

    def on_token(self, event) -> None:
        self.hear("token")

    def on_end(self, completion) -> None:
        self.hear("end")

    def on_error(self, error) -> None:
        self.error = error
        self.hear("error")


@pytest.mark.parametrize("where", ["start", "token", "end"])
@pytest.mark.parametrize("how", ["result", "iterate"])
def test_a_callback_that_raises_ends_its_own_request(serve, where: str, how: str) -> None:
    engine = serve(step_seconds=0.005)
    other = ask(engine, "other", 20)
    breaking, silent = Breaking(where), Breaking("")

    def run() -> None:
        stream = engine.submit(request("hello", 5 if where == "end" else 400), observers=[silent, breaking])
        if how == "result":
            stream.result()
        else:
            list(stream)

    with pytest.raises(CallbackError, match=f"on_{where} raised KeyError") as caught:
        run()
    assert isinstance(caught.value.__cause__, KeyError)
    assert other.result().text == alone("other", 20)
    # Everybody hears how it ended, once, and the one that is sound as well.
    heard = {"start": ["start", "error"], "token": ["start", "token", "error"]}
    assert silent.heard == heard.get(where, ["start", *["token"] * 5, "end"])
    wait_quiet(engine)
    if where != "end":
        assert silent.error is caught.value
        assert engine.stats().cancelled == 1


@pytest.mark.parametrize("done_before", [False, True])
async def test_a_callback_that_raises_async(serve, done_before: bool) -> None:
    engine = serve()
    stream = engine.submit(request("hello", 50), observers=[Breaking("token")])
    if done_before:
        wait_until(lambda: stream.completion is not None, "the answer is complete")
    with pytest.raises(CallbackError):
        await stream.aresult()
    with pytest.raises(CallbackError):
        await stream.aresult()
    with pytest.raises(CallbackError):
        await anext(aiter(stream))
    assert stream.completion is None


def test_what_on_error_raises_does_not_hide_the_error(serve, caplog: pytest.LogCaptureFixture) -> None:
    engine = serve(fail_on=holds_bad)
    breaking = Breaking("error")
    with pytest.raises(DecodeError):
        engine.submit(request("bad!"), observers=[breaking]).result()
    assert breaking.heard == ["start", "error"]
    assert "on_error" in caplog.text


def test_callbacks_hear_of_every_token_and_of_one_end(serve) -> None:
    engine = serve()
    silent = Breaking("")
    stream = engine.submit(request("hello", 4), observers=[silent])
    assert silent.heard == ["start"]
    assert stream.result().text == alone("hello", 4)
    stream.result()
    list(stream)
    assert silent.heard == ["start", "token", "token", "token", "token", "end"]


def test_callbacks_hear_that_the_reader_left(serve) -> None:
    engine = serve(step_seconds=0.005)
    for leave in ("break", "with", "cancel"):
        silent = Breaking("")
        stream = engine.submit(request("hello", 400), observers=[silent])
        if leave == "with":
            with stream:
                pass
        else:
            iterator = iter(stream)
            next(iterator)
            if leave == "cancel":
                stream.cancel()
                with pytest.raises(RequestCancelled):
                    list(iterator)
            del iterator
        assert silent.heard[-1] == "error", leave
        assert silent.heard.count("error") == 1
        assert isinstance(silent.error, RequestCancelled)


def test_use_after_close(serve) -> None:
    engine = serve()
    done = ask(engine, "hello", 3)
    done.result()
    engine.close()
    engine.close()
    assert engine.closed
    with pytest.raises(EngineClosed, match="Load it again"):
        ask(engine)
    with pytest.raises(EngineClosed):
        engine.embed([[1]])
    assert done.result().text == "".join(event.text for event in done) == alone("hello", 3)
    assert engine.stats().finished == 1
    assert engine.idle_seconds() >= 0


def test_close_while_requests_are_under_way(serve) -> None:
    engine = serve(max_parallel=2, step_seconds=0.01)
    streams = [ask(engine, f"{number}", 400) for number in range(5)]
    future = engine.embed([[1]] * 50_000)
    wait_until(lambda: len(engine.backend.decodes) > 3, "it computes")
    engine.close()
    errors = []
    for stream in streams:
        with pytest.raises(EngineClosed, match="while the request was under way") as caught:
            stream.result()
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 5
    with pytest.raises(EngineClosed):
        future.result(timeout=20)
    stats = engine.stats()
    assert not engine._worker._jobs
    assert stats.finished == 0


def test_close_interrupts_a_long_step(serve) -> None:
    engine = serve(step_seconds=60)
    stream = ask(engine)
    wait_until(lambda: engine._worker._decoding, "it computes")
    engine.close()
    with pytest.raises(EngineClosed):
        stream.result()


def test_close_from_many_threads_at_once(serve) -> None:
    engine = serve(step_seconds=0.01)
    stream = ask(engine, "hello", 400)
    threads = [threading.Thread(target=engine.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    with pytest.raises(EngineClosed):
        stream.result()


def test_close_in_the_engines_own_thread(serve) -> None:
    # A future calls back in the thread that set it.
    engine = serve()
    closed = concurrent.futures.Future()

    def close(future) -> None:
        engine.close()
        closed.set_result(threading.current_thread())

    with at_once(engine):
        engine.embed([[1]]).add_done_callback(close)
    assert closed.result(timeout=20) is engine._worker._thread
    engine._worker._thread.join(20)
    assert not engine._worker._thread.is_alive()
    assert engine.closed


def test_close_in_a_callback_of_the_reader(serve) -> None:
    engine = serve(step_seconds=0.002)

    class Closing(TokenCallback):
        def on_token(self, event) -> None:
            engine.close()

    stream = engine.submit(request("hello", 400), observers=[Closing()])
    with pytest.raises(EngineClosed):
        stream.result()


def test_a_wakeup_that_fails_is_logged_and_ends_nothing_else(serve, caplog: pytest.LogCaptureFixture) -> None:
    engine = serve()
    with caplog.at_level(logging.ERROR):
        engine.embed([[1]]).add_done_callback(lambda future: 1 / 0)
        assert ask(engine, "hello", 5).result().text == alone("hello", 5)


def test_an_embedding_that_fails(serve) -> None:
    class Choosy(ScriptedBackend):
        def embed(self, texts):
            if any(len(text) > 3 for text in texts):
                raise ValueError("too long")
            return super().embed(texts)

    engine: Engine = serve(kind=Choosy)
    bad, good = engine.embed([[1] * 4]), engine.embed([[1]])
    with pytest.raises(DecodeError, match="too long"):
        bad.result(timeout=20)
    assert good.result(timeout=20).shape == (1, 8)
