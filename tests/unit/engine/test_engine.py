"""Requests in, answers out: the same as if each had run alone."""

import gc
import math
import threading
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from local_llms.backends.base import BackendInfo
from local_llms.engine import Engine, Request, worker
from local_llms.engine.embedding import parts_of
from local_llms.engine.scheduler import WORTH_WAITING
from local_llms.errors import (
    ContextOverflow,
    DeadlineExceeded,
    EmptyPrompt,
    EngineBusy,
    OptionError,
    UnsupportedFeature,
)
from local_llms.testing.scripted import EOS, ScriptedBackend, say
from local_llms.types import SamplingParams
from tests.unit.engine.engine_help import alone, ask, at_once, ids, request, wait_quiet, wait_until


@pytest.mark.parametrize("cache_tokens", [4096, 200, 60])
@pytest.mark.parametrize("can_cut", [True, False])
def test_answers_are_those_of_running_alone(serve, cache_tokens: int, can_cut: bool) -> None:
    engine = serve(cache_tokens=cache_tokens, can_cut=can_cut, batch_tokens=16)
    texts = [f"{'the same beginning ' * (number % 2)}{number}" for number in range(12)]
    streams = [ask(engine, text, 5 + number) for number, text in enumerate(texts)]
    assert [stream.result().text for stream in streams] == [
        alone(text, 5 + number) for number, text in enumerate(texts)
    ]


def test_events_say_what_the_completion_says(serve) -> None:
    engine = serve()
    stream = ask(engine, "hello", 12)
    events = list(stream)
    completion = stream.result()
    assert [event.index for event in events] == list(range(12))
    assert tuple(event.token_id for event in events) == completion.token_ids
    assert "".join(event.text for event in events) == completion.text == alone("hello", 12)
    assert {event.logprob for event in events} == {None}
    assert completion.token_logprobs == ()
    assert stream.completion is completion


def test_usage_counts_prompt_answer_and_cache(serve) -> None:
    engine = serve()
    usage = ask(engine, "hello", 7).result().usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_prompt_tokens) == (6, 7, 0)
    again = ask(engine, "hello", 7).result().usage
    assert (again.prompt_tokens, again.completion_tokens, again.cached_prompt_tokens) == (6, 7, 5)
    stats = engine.stats()
    assert (stats.finished, stats.prompt_tokens, stats.cached_prompt_tokens, stats.completion_tokens) == (2, 12, 5, 14)
    assert stats.tokens_per_second > 0


def test_timings_add_up(serve) -> None:
    timings = ask(serve(step_seconds=0.01), "hello", 5).result().timings
    assert 0 <= timings.queued <= timings.first_token <= timings.total
    assert timings.total >= 0.05
    assert timings.tokens_per_second == pytest.approx(4 / (timings.total - timings.first_token))
    assert timings.tokens_per_second <= 110


def test_the_end_token_ends_an_answer(serve) -> None:
    stream = ask(serve(script=say("good day")), "x", 100)
    events = list(stream)
    completion = stream.result()
    assert (completion.text, completion.finish_reason, completion.stop_match) == ("good day", "stop", None)
    assert completion.token_ids[-1] == events[-1].token_id == EOS
    assert completion.usage.completion_tokens == len("good day") + 1


def test_an_end_token_that_the_request_does_not_know_is_a_token_like_others(serve) -> None:
    engine = serve(script=say("hi"))
    completion = engine.submit(Request(ids("x"), SamplingParams(temperature=0.0, max_tokens=3))).result()
    assert (completion.finish_reason, completion.token_ids[-1]) == ("length", EOS)
    assert completion.text == "hi"


def test_a_stop_string_ends_an_answer_and_is_not_part_of_it(serve) -> None:
    stream = ask(serve(script=say("one\nUser: two")), "x", 100, stop=("\nUser:", "###"))
    assert "".join(event.text for event in stream) == "one"
    completion = stream.result()
    assert (completion.text, completion.finish_reason, completion.stop_match) == ("one", "stop", "\nUser:")


def test_max_tokens_releases_what_was_held_back(serve) -> None:
    stream = ask(serve(script=say("ab##")), "x", 4, stop=("###",))
    assert [event.text for event in stream] == ["a", "b", "", "##"]
    assert stream.result().finish_reason == "length"


def test_multi_byte_characters_come_whole(serve) -> None:
    stream = ask(serve(script=say("é語🙂")), "x", 100)
    assert [event.text for event in stream if event.text] == ["é", "語", "🙂"]


@pytest.mark.parametrize(("context", "cache"), [(40, 4096), (512, 40)])
def test_an_answer_ends_where_context_or_cache_is_full(serve, context: int, cache: int) -> None:
    engine = serve(context_length=context, cache_tokens=cache)
    for count in (None, 1000):
        completion = ask(engine, "x" * 29, count).result()
        assert completion.finish_reason == "length"
        assert completion.usage.total_tokens == 40
        assert completion.text == alone("x" * 29, 10)
    assert ask(engine, "x" * 38, None).result().usage.completion_tokens == 1


@pytest.mark.parametrize(
    ("context", "trained", "cache", "hint"),
    [(40, 512, 4096, "context_length"), (40, 40, 4096, "trained with no more"), (512, 512, 40, "cache_tokens")],
)
def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(serve, context, trained, cache, hint) -> None:
    engine = serve(info=info(context_length=context, trained_context_length=trained, cache_tokens=cache))
    with pytest.raises(ContextOverflow, match=f"41 tokens.* 40.*{hint}") as caught:
        ask(engine, "x" * 40)
    assert (caught.value.prompt_tokens, caught.value.context_length) == (41, 40)
    with pytest.raises(ContextOverflow):
        ask(engine, "x" * 39)


def test_what_cannot_be_served_is_refused_at_the_door(serve) -> None:
    engine = serve()
    with pytest.raises(EmptyPrompt):
        engine.submit(Request((), SamplingParams()))
    for bias in ({260: 1.0}, {-1: 1.0}, {2**70: 1.0}, {5: math.nan}, {5: math.inf}):
        with pytest.raises(OptionError, match="logit_bias"):
            ask(engine, logit_bias=bias)
    assert ask(engine, logit_bias={259: -math.inf}, count=3).result().text == alone("hello", 3)


def test_sampling_depends_on_the_seed_and_not_on_the_company(serve) -> None:
    def answers(engine: Engine, company: int) -> list[str]:
        with at_once(engine):
            streams = [ask(engine, f"p{n}", 25, temperature=3.0, seed=n, top_k=0, min_p=0.0) for n in range(4)]
            others = [ask(engine, f"other {n}", 30, temperature=n % 2, seed=None) for n in range(company)]
        texts = [stream.result().text for stream in streams]
        for other in others:
            other.result()
        return texts

    quiet = answers(serve(), 0)
    assert len(set(quiet)) == 4
    assert answers(serve(), 10) == quiet
    crowded = serve(cache_tokens=100, batch_tokens=8)
    assert answers(crowded, 10) == quiet
    assert crowded.stats().preemptions > 0


def test_logprobs_are_the_log_softmax_of_the_rows(serve) -> None:
    # Answers of different lengths end at different steps. The shorter one of two that are alike is freed at once, and
    # that call of the backend makes the rows of the others in this step invalid.
    engine = serve()
    texts = [f"prompt {number // 2}" for number in range(6)]
    streams = [ask(engine, text, 3 + number, logprobs=True) for number, text in enumerate(texts)]
    for text, stream in zip(texts, streams, strict=True):
        events = list(stream)
        tokens = list(ids(text))
        for event in events:
            row = engine.backend._row(tokens).astype(np.float64)
            expected = row[event.token_id] - row.max() - math.log(np.exp(row - row.max()).sum())
            assert event.logprob == pytest.approx(expected, abs=1e-5)
            tokens.append(event.token_id)
        assert stream.result().token_logprobs == tuple(event.logprob for event in events)


def test_requests_that_come_together_share_their_prefix(serve) -> None:
    engine = serve(step_seconds=0.01)
    warm = ask(engine, "warm up", 30)
    wait_until(lambda: engine.backend.decodes, "it computes")
    context = "a context of some length, the same for all; " * 3
    with at_once(engine):
        del warm  # the others arrive while it is on its way out
        streams = [ask(engine, f"{context}{number}", 4) for number in range(8)]
    cached = sorted(stream.result().usage.cached_prompt_tokens for stream in streams)
    # One that arrives when no more than WORTH_WAITING tokens are left to be read reads those itself. The first finds
    # BOS of the one before.
    assert cached[0] <= 1
    assert all(len(context) + 1 - WORTH_WAITING < count <= len(context) + 1 for count in cached[1:])


def test_a_long_prompt_does_not_stall_the_others(serve) -> None:
    engine = serve(context_length=4000, cache_tokens=9000, batch_tokens=50, step_seconds=0.002)
    with at_once(engine):
        running = ask(engine, "short", 3500)
        running._channel.call_when_ready(bool, for_tokens=True)  # somebody reads it as it comes
    iterator = iter(running)
    next(iterator)
    long = ask(engine, "x" * 2000, 1)
    long.result()
    decodes = [decode for decode in engine.backend.decodes if any(len(chunk.tokens) > 1 for chunk in decode)]
    mixed = [decode for decode in decodes if decode[0].start > 6]
    assert len(mixed) >= 2000 // 50
    assert all(len(decode[0].tokens) == 1 for decode in mixed), "a step without a token for the one that decodes"
    running.cancel()


def test_a_full_queue_is_an_error_that_invites_to_try_again(serve) -> None:
    engine = serve(max_parallel=2, max_queue=3, step_seconds=0.01)
    streams = [ask(engine, f"{number}", 400) for number in range(5)]
    with pytest.raises(EngineBusy, match="max_queue") as caught:
        ask(engine)
    assert caught.value.retryable
    streams[0].cancel()
    again = ask(engine, "again", 2)
    engine.backend._step_seconds = 0.0
    assert again.result().text == alone("again", 2)
    assert [stream.result().text for stream in streams[1:]] == [alone(f"{number}", 400) for number in range(1, 5)]


def test_a_request_preempted_takes_nobodys_place_in_the_queue(serve) -> None:
    engine = serve(max_parallel=4, max_queue=1, cache_tokens=100, step_seconds=0.002)
    with at_once(engine):
        streams = [ask(engine, f"{number}", 80) for number in range(4)]
    wait_until(lambda: engine.stats().preemptions > 1, "there are preemptions")
    last = ask(engine, "last", 3)
    for stream in streams:
        stream.cancel()
    assert last.result().text == alone("last", 3)


def test_a_deadline_passes_while_running(serve) -> None:
    engine = serve(step_seconds=0.02)
    stream = ask(engine, "hello", 400, deadline=time.monotonic() + 0.2)
    seen = []
    with pytest.raises(DeadlineExceeded) as caught:
        seen.extend(iter(stream))
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.retryable


def test_a_deadline_passes_while_nobody_reads(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = serve(step_seconds=0.02, max_parallel=1)
    running = ask(engine, "first", 400, deadline=time.monotonic() + 200)
    queued = ask(engine, "second", 400, deadline=time.monotonic() + 100)
    wait_until(lambda: engine.backend.decodes, "it computes")
    clock = time.monotonic
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: clock() + 300))
    wait_quiet(engine)
    for stream in (running, queued):
        with pytest.raises(DeadlineExceeded):
            stream.result()
    assert queued.completion is None
    assert engine.stats().failed == 2
    assert ask(engine, "first", 1).result().usage.cached_prompt_tokens == len("first")


def test_a_deadline_ends_a_wait_in_the_queue(serve) -> None:
    engine = serve(step_seconds=60, max_parallel=1)
    running = ask(engine, "first", 3)
    wait_until(lambda: engine._worker._decoding, "it computes")
    with pytest.raises(DeadlineExceeded):
        ask(engine, "second", 3, deadline=time.monotonic() + 0.1).result()
    assert engine.backend.decodes == [], "the reader waited for the engine's step"
    running.cancel()


async def test_a_deadline_may_be_far_away(serve) -> None:
    engine = serve(step_seconds=0.005)
    for deadline in (math.inf, time.monotonic() + 1e12):
        assert ask(engine, "hello", 5, deadline=deadline).result().text == alone("hello", 5)
        assert (await ask(engine, "hello", 5, deadline=deadline).aresult()).text == alone("hello", 5)


def test_a_reader_that_never_reads_delays_nobody(serve) -> None:
    engine = serve()
    unread = ask(engine, "unread", 300)
    assert ask(engine, "read", 100).result().text == alone("read", 100)
    wait_quiet(engine)
    assert "".join(event.text for event in unread) == alone("unread", 300)


def test_nothing_is_held_of_a_request_once_its_stream_is_dropped(serve) -> None:
    engine = serve()
    streams = [ask(engine, f"{number}", 5) for number in range(3)]
    for stream in streams[:2]:
        stream.result()
    streams[2].cancel()
    wait_quiet(engine)
    gc.collect()
    gc.disable()
    try:
        gone = [weakref.ref(stream._channel) for stream in streams]
        stream = None
        streams.clear()
        assert [reference() for reference in gone] == [None] * 3
    finally:
        gc.enable()


def test_idle_seconds(serve) -> None:
    engine = serve(step_seconds=0.05)
    begun = time.monotonic()
    with at_once(engine):
        stream = ask(engine, "x", 20)
        assert engine.idle_seconds() == 0.0
    computed = stream.result().timings.total
    wait_quiet(engine)
    assert engine.idle_seconds() <= time.monotonic() - begun - computed, "the time of computing counts as idle"
    before = engine.idle_seconds()
    wait_until(lambda: engine.idle_seconds() > before + 0.05, "time passes")


def info(**changes: object) -> BackendInfo:
    whole = ScriptedBackend().info
    return BackendInfo(**{name: changes.get(name, getattr(whole, name)) for name in BackendInfo.__dataclass_fields__})


def test_a_model_does_what_it_can_only(serve) -> None:
    with pytest.raises(UnsupportedFeature, match="makes embeddings"):
        ask(serve(info=info(can_generate=False)))
    with pytest.raises(UnsupportedFeature, match="makes no embeddings"):
        serve(info=info(embedding_size=None)).embed([[1]])


def test_embeddings_come_in_the_order_of_the_texts(serve) -> None:
    engine = serve(max_sequences=4, batch_tokens=32)
    texts = [[number] * (1 + number % 40) for number in range(30)]
    expected = ScriptedBackend().embed(texts)
    np.testing.assert_array_equal(engine.embed(texts).result(), expected)
    assert engine.embed([]).result().shape == (0, 8)


def test_texts_are_grouped_to_fit() -> None:
    assert parts_of([[1] * 3, [2] * 3, [3] * 9, [4], [5], [6], [7] * 2], 8, 3) == [
        [[1] * 3, [2] * 3],
        [[3] * 9],
        [[4], [5], [6]],
        [[7] * 2],
    ]
    assert parts_of([], 8, 3) == []


def test_a_long_embedding_task_does_not_hold_up_answers_or_short_tasks(serve) -> None:
    engine = serve(step_seconds=0.01, max_sequences=2)
    long = engine.embed([[1, 2]] * 4000)
    short = engine.embed([[3]])
    assert ask(engine, "hello", 5).result().text == alone("hello", 5)
    assert short.result().shape == (1, 8)
    assert not long.done()
    assert long.cancel(), "a task under way could not be cancelled"
    wait_quiet(engine, 15.0)


def test_too_many_embedding_tasks(serve) -> None:
    engine = serve(step_seconds=0.05, max_queue=2)
    with at_once(engine):
        futures = [engine.embed([[1]]) for _ in range(2)]
        with pytest.raises(EngineBusy, match="embedding"):
            engine.embed([[1]])
    assert [future.result().shape for future in futures] == [(1, 8)] * 2


def test_threads_may_ask_at_once(serve) -> None:
    engine = serve()
    texts: dict[int, str] = {}

    def client(number: int) -> None:
        for turn in range(5):
            texts[number * 5 + turn] = ask(engine, f"{number} {turn}", 10).result().text

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {n * 5 + turn: alone(f"{n} {turn}", 10) for n in range(8) for turn in range(5)}


def test_request_and_room_are_checked_before_anything_is_queued(serve) -> None:
    engine = serve(context_length=8)
    with pytest.raises(ContextOverflow):
        engine.submit(request("much too long"))
    assert engine.stats().waiting == 0
    assert engine.backend.decodes == []
