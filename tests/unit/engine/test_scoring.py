"""Texts that are scored: the log-probability of each token, computed among requests that generate."""

import math
import threading

import numpy as np
import pytest

from local_llms.backends.base import Chunk
from local_llms.engine import Request, Stream, scheduler
from local_llms.errors import ContextOverflow, DecodeError, EmptyPrompt, RequestCancelled
from local_llms.testing.scripted import ScriptedBackend
from tests.unit.engine.engine_help import alone, ask, at_once, ids, wait_quiet, wait_until

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom."


def score(engine, text: str = TEXT, **options: object) -> Stream:
    return engine.submit(Request(ids(text), score=True, **options))


def truth(text: str) -> list[float]:
    """Log-softmax of the rows of a backend that computes the text at once."""
    tokens = ids(text)
    rows = ScriptedBackend(batch_tokens=4096, context_length=4096).decode([Chunk(0, 0, tokens, "all")])
    sums = np.log(np.exp(rows.astype(np.float64)).sum(axis=1))
    return [float(rows[place, token]) - sums[place] for place, token in enumerate(tokens[1:])]


@pytest.mark.parametrize("batch_tokens", [1, 7, 128])
@pytest.mark.parametrize("can_cut", [True, False])
def test_every_token_gets_its_log_probability(serve, batch_tokens, can_cut) -> None:
    engine = serve(batch_tokens=batch_tokens, can_cut=can_cut)
    found = score(engine).result()
    assert found.token_logprobs == pytest.approx(truth(TEXT), abs=1e-5)
    assert (found.text, found.token_ids) == ("", ())
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(ids(TEXT)), 0)


def test_a_single_token_has_nothing_before_it(serve) -> None:
    assert score(serve(), "").result().token_logprobs == ()


def test_nothing_is_taken_from_the_cache_and_what_was_computed_is_kept(serve) -> None:
    engine = serve()
    ask(engine, TEXT, 3).result()
    found = score(engine).result()
    assert found.token_logprobs == pytest.approx(truth(TEXT), abs=1e-5)
    assert found.usage.cached_prompt_tokens == 0
    assert ask(engine, TEXT, 3).result().usage.cached_prompt_tokens == len(ids(TEXT)) - 1


def test_it_is_computed_among_others_part_by_part(serve) -> None:
    engine = serve(step_seconds=0.002, batch_tokens=64)
    texts = [TEXT * 3, TEXT[::-1], "short"]
    with at_once(engine):
        answers = [ask(engine, f"question {number}", 60) for number in range(3)]
        scores = [score(engine, text) for text in texts]
    for text, stream in zip(texts, scores, strict=True):
        assert stream.result().token_logprobs == pytest.approx(truth(text), abs=1e-5)
    for number, stream in enumerate(answers):
        assert stream.result().text == alone(f"question {number}", 60)
    together = [chunks for chunks in engine.backend.decodes if {chunk.logits for chunk in chunks} == {"all", "last"}]
    assert together, "no step served both kinds"


def test_one_that_is_computed_again_from_its_beginning(serve) -> None:
    together = 0

    def fails(chunks: list[Chunk]) -> bool:
        nonlocal together
        together += len(chunks) > 1 and any(chunk.start and chunk.logits == "all" for chunk in chunks)
        return together == 1 and len(chunks) > 1

    # A state that cannot be cut is lost where a decode fails.
    engine = serve(can_cut=False, batch_tokens=16, fail_on=fails, step_seconds=0.002)
    with at_once(engine):
        answer = ask(engine, "well", 60)
        # Somebody reads it as it comes, so it goes on while the text is read.
        reader = threading.Thread(target=list, args=(answer,))
        reader.start()
        wait_until(lambda: answer._channel.watched, "somebody reads")
        scored = score(engine, TEXT * 2)
    assert scored.result().token_logprobs == pytest.approx(truth(TEXT * 2), abs=1e-5)
    reader.join()
    assert answer.completion.text == alone("well", 60)
    assert together > 0


def test_the_rows_of_a_step_are_bounded(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "SCORED_LOGITS", 10 * 260)
    engine = serve(batch_tokens=64)
    streams = [score(engine, TEXT[number:]) for number in range(4)]
    for number, stream in enumerate(streams):
        assert stream.result().token_logprobs == pytest.approx(truth(TEXT[number:]), abs=1e-5)
    rows = [sum(len(chunk.tokens) for chunk in chunks if chunk.logits == "all") for chunks in engine.backend.decodes]
    assert max(rows) == 10


def test_after_a_failure_it_is_tried_alone(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "SCORED_LOGITS", 16 * 260)
    engine = serve(fail_on=lambda chunks: any(ord("#") in chunk.tokens for chunk in chunks), batch_tokens=64)
    streams = [score(engine), score(engine, "a # is bad"), ask(engine, "well", 5)]
    assert streams[0].result().token_logprobs == pytest.approx(truth(TEXT), abs=1e-5)
    with pytest.raises(DecodeError):
        streams[1].result()
    assert streams[2].result().text == alone("well", 5)


def test_a_text_that_does_not_fit(serve) -> None:
    engine = serve(context_length=64)
    assert len(score(engine, "x" * 63).result().token_logprobs) == 63
    with pytest.raises(ContextOverflow, match="parts") as caught:
        score(engine, "x" * 64)
    assert (caught.value.prompt_tokens, caught.value.context_length) == (65, 64)
    with pytest.raises(EmptyPrompt):
        engine.submit(Request((), score=True))


def test_cancelling(serve) -> None:
    engine = serve(step_seconds=0.05, batch_tokens=4)
    stream = score(engine, TEXT * 5)
    wait_until(lambda: engine.backend.decodes, "it computes")
    stream.cancel()
    count = len(engine.backend.decodes)
    with pytest.raises(RequestCancelled):
        stream.result()
    wait_quiet(engine)
    assert len(engine.backend.decodes) - count <= 1


async def test_awaiting(serve) -> None:
    assert (await score(serve()).aresult()).token_logprobs == pytest.approx(truth(TEXT), abs=1e-5)


@pytest.mark.parametrize("count", [1, 5, 259, 260, 300])
def test_the_most_probable_tokens(serve, count) -> None:
    engine = serve()
    answer = ask(engine, "hello", 4, top_logprobs=count, logprobs=True)
    events = list(answer)
    completion = answer.result()
    tokens = list(ids("hello"))
    backend = ScriptedBackend()
    for place, event in enumerate(events):
        row = backend.decode([Chunk(place, 0, tokens)])[0].astype(np.float64)
        expected = row - math.log(np.exp(row).sum())
        best = sorted(range(len(row)), key=lambda token: -row[token])[:count]
        assert [one.token_id for one in event.top_logprobs] == best
        assert [one.logprob for one in event.top_logprobs] == pytest.approx(expected[best], abs=1e-5)
        assert (event.data, event.logprob) == (bytes([event.token_id]), pytest.approx(expected[event.token_id]))
        names = {one.token_id: one.data for one in event.top_logprobs}
        assert names.get(257, b"</s>") == b"</s>"
        tokens.append(event.token_id)
    assert completion.top_logprobs == tuple(event.top_logprobs for event in events)


def test_without_being_asked_nothing_is_told(serve) -> None:
    answer = ask(serve(), "hello", 3, logprobs=True)
    assert [(event.top_logprobs, event.data) for event in answer] == [((), bytes([ord(c)])) for c in alone("hello", 3)]
    assert answer.result().top_logprobs == ()
    (event, *_) = list(ask(serve(), "hello", 3))
    assert (event.logprob, event.data) == (None, b"")
