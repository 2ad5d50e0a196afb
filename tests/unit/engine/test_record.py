"""What an engine tells of its work: figures, and log lines with fields."""

import logging
from pathlib import Path

import pytest

from local_llms import load_model
from local_llms.backends.base import Adapter
from local_llms.engine.record import RECENT_SECONDS, Record
from local_llms.errors import AdapterError
from local_llms.testing.scripted import ScriptedBackend, say, write_adapter
from local_llms.testing.scripted_model import scripted_model
from tests.unit.engine.engine_help import ask, ids, wait_quiet, wait_until

SECRET = "nobody else may read this"


def events(caplog: pytest.LogCaptureFixture, **about: object) -> list[tuple[str, dict]]:
    """What was told, about this path where one is given: the models of other tests may be freed just now."""
    told = [(record.event, record.fields) for record in caplog.records if hasattr(record, "event")]
    return [(event, fields) for event, fields in told if about.items() <= fields.items()]


def test_a_request_is_told_with_its_figures_and_not_with_its_text(serve, caplog) -> None:
    caplog.set_level(logging.DEBUG, "local_llms.engine")
    engine = serve()
    ask(engine, SECRET, 3).result()
    ask(engine, SECRET, 3).result()
    wait_quiet(engine)
    told = events(caplog)
    assert [event for event, _ in told] == ["request started", "request finished"] * 2
    (_, start), (_, end) = told[-2:]
    assert start == {
        "request": end["request"],
        "prompt_tokens": len(ids(SECRET)),
        "cached_prompt_tokens": len(ids(SECRET)) - 1,
    }
    assert end["completion_tokens"] == 3
    assert end["finish_reason"] == "length"
    assert 0 <= end["queued"] <= end["first_token"] <= end["total"]
    assert told[0][1]["request"] != told[2][1]["request"]
    assert SECRET not in caplog.text
    assert f"prompt_tokens={len(ids(SECRET))}" in caplog.text


def test_other_ends_are_told_too(serve, caplog, tmp_path: Path) -> None:
    caplog.set_level(logging.DEBUG, "local_llms.engine")
    engine = serve(step_seconds=0.01)
    stream = ask(engine, "cancelled", 400)
    wait_until(lambda: engine.stats().completion_tokens > 1, "it answers")
    stream.cancel()
    with pytest.raises(AdapterError):
        ask(engine, "failed", 4, adapter=Adapter(tmp_path / "missing")).result()
    ask(engine, "well", 2, adapter=Adapter(write_adapter(tmp_path / "good"))).result()
    wait_quiet(engine)
    told = dict(events(caplog))
    assert told["request cancelled"]["completion_tokens"] > 0
    assert told["request failed"]["error"] == "AdapterError"
    assert told["adapter opened"]["path"] == str(tmp_path / "good")


def test_nothing_is_printed_by_default(capfd) -> None:
    with scripted_model(lambda: ScriptedBackend(say("Hello"))) as model, load_model(model) as loaded:
        loaded.generate("Hi")
    assert capfd.readouterr() == ("", "")


def test_loading_and_freeing_are_told(caplog) -> None:
    caplog.set_level(logging.INFO, "local_llms")
    with scripted_model(lambda: ScriptedBackend(say("Hello"))) as model:
        with load_model(model) as loaded:
            loaded.generate("Hi")
        told = events(caplog, path=model.path)
        assert [event for event, _ in told] == ["model loaded", "model freed"]
        assert told[0][1]["backend"] == "scripted"


def test_figures(serve, tmp_path: Path) -> None:
    engine = serve(cache_tokens=1000)
    adapter = Adapter(write_adapter(tmp_path / "one"))
    text = "a beginning that is shared"
    for options in ({}, {}, {"adapter": adapter}):
        ask(engine, text, 10, **options).result()
    wait_quiet(engine)
    stats = engine.stats()
    assert (stats.finished, stats.completion_tokens, stats.adapters) == (3, 30, 1)
    assert (stats.waiting, stats.running, stats.waiting_embeddings) == (0, 0, 0)
    assert (stats.prefix_hits, stats.cached_prompt_tokens) == (1, len(ids(text)) - 1)
    assert stats.prefix_hit_rate == pytest.approx((len(ids(text)) - 1) / (3 * len(ids(text))))
    assert stats.cache_use == pytest.approx(engine.backend.cells_used / 1000)
    assert stats.tokens_per_second > 0
    assert stats.recent_tokens_per_second > 0


def test_the_recent_speed_forgets() -> None:
    record = Record()
    for _ in range(10):
        record.token()
    record.stepped(now=100.0, elapsed=2.0)
    assert record.stats(100.0).recent_tokens_per_second == 5.0
    record.token()
    record.stepped(now=101.0, elapsed=0.5)
    assert record.stats(101.0).recent_tokens_per_second == 11 / 2.5
    assert record.stats(101.0 + RECENT_SECONDS - 0.5).recent_tokens_per_second == 2.0
    assert record.stats(102.0 + RECENT_SECONDS).recent_tokens_per_second == 0.0
    assert record.stats(200.0).completion_tokens == 11
    record.stepped(now=200.0, elapsed=1.0)
    assert len(record._recent) == 1
