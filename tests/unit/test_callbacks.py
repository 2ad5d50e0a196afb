"""Token callbacks: what they show, from one thread and from many."""

from __future__ import annotations

import io
import sys
import threading
import time

import pytest
from rich.console import Console

from local_llms.callbacks import PrintCallback, RichCallback, TokenCallback
from local_llms.engine import Engine, Request
from local_llms.testing.scripted import EOS, ScriptedBackend, say
from local_llms.types import Completion, SamplingParams, Timings, TokenEvent, Usage

DONE = Completion("ab", (97, 98), "stop", Usage(3, 2), Timings(0.0, 0.1, 0.2, 2))


def events(text: str) -> list[TokenEvent]:
    return [TokenEvent(index, ord(character), character) for index, character in enumerate(text)]


def terminal(width: int = 100) -> Console:
    """A console that takes itself for a terminal."""
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


def shown(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_every_method_may_be_left_out() -> None:
    callback = TokenCallback()
    callback.on_start(3)
    callback.on_token(events("a")[0])
    callback.on_end(DONE)
    callback.on_error(ValueError())


def test_print_writes_the_text_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    callback = PrintCallback()
    callback.on_start(3)
    for event in events("ab"):
        callback.on_token(event)
    assert capsys.readouterr().out == "ab"
    callback.on_end(DONE)
    assert capsys.readouterr().out == "\n"


def test_print_flushes_every_token() -> None:
    class File(io.StringIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed += 1

    file = File()
    callback = PrintCallback(file)
    callback.on_token(events("a")[0])
    callback.on_error(ValueError())
    assert (file.getvalue(), file.flushed) == ("a\n", 2)


def test_rich_draws_tokens_and_speed_and_then_nothing() -> None:
    console = terminal()
    callback = RichCallback(console)
    callback.on_start(17)
    for event in events("abcd"):
        callback.on_token(event)
    callback._progress.refresh()
    time.sleep(0.15)  # its own thread draws as well
    callback.on_end(DONE)
    text = shown(console)
    assert "prompt 17 tokens" in text
    assert "4 tokens" in text
    assert "tokens/s" in text
    assert not callback._progress.live.is_started
    assert callback._progress.tasks == []


def test_rich_counts_anew_for_the_next_request() -> None:
    console = terminal()
    callback = RichCallback(console)
    for prompt in (5, 6):
        callback.on_start(prompt)
        callback.on_token(events("a")[0])
        assert [task.completed for task in callback._progress.tasks] == [1]
        callback.on_error(ValueError())
    assert not callback._progress.live.is_started
    assert "prompt 6 tokens" in shown(console)


def test_rich_goes_on_until_the_last_of_several_requests() -> None:
    callback = RichCallback(terminal())
    callback.on_start(5)
    callback.on_start(6)
    assert callback._progress.tasks[0].description == "2 requests"
    callback.on_end(DONE)
    assert callback._progress.live.is_started
    callback.on_token(events("a")[0])
    callback.on_error(ValueError())
    assert not callback._progress.live.is_started


def test_a_token_that_comes_late_is_no_error() -> None:
    callback = RichCallback(terminal())
    callback.on_token(events("a")[0])
    callback.on_start(5)
    callback.on_end(DONE)
    callback.on_token(events("a")[0])
    callback.on_end(DONE)
    callback.on_start(5)
    assert callback._progress.live.is_started
    callback.on_end(DONE)
    assert not callback._progress.live.is_started


def test_rich_from_many_threads() -> None:
    callback = RichCallback(terminal())
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                callback.on_start(3)
                for event in events("abc"):
                    callback.on_token(event)
                callback.on_end(DONE)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not failures
    assert callback._running == 0
    assert not callback._progress.live.is_started


def test_one_callback_for_many_requests_of_an_engine() -> None:
    engine = Engine(ScriptedBackend(say("some words")))
    try:
        file = io.StringIO()
        rich = RichCallback(terminal())
        request = Request((1, 2, 3), SamplingParams(temperature=0.0), frozenset({EOS}))
        streams = [engine.submit(request, observers=[rich, PrintCallback(file)]) for _ in range(4)]
        assert {stream.result().text for stream in streams} == {"some words"}
        assert file.getvalue() == "some words\n" * 4
        assert not rich._progress.live.is_started
    finally:
        engine.close()
