"""Adapters in the engine: each request is computed with its own, and shares nothing with others."""

import os
from pathlib import Path

import pytest

from local_llms.backends.base import Adapter
from local_llms.engine import Engine
from local_llms.errors import AdapterError, DecodeError, EngineClosed, RequestCancelled, UnsupportedFeature
from local_llms.testing.scripted import ADAPTER_TOKEN, ScriptedBackend, echo_script, write_adapter
from tests.unit.engine.engine_help import ask, at_once, ids, wait_quiet, wait_until
from tests.unit.engine.scheduler_house import ADAPTERS, PREFIX, House


def with_adapter(text: str, count: int, number: int, scale: float = 1.0) -> str:
    """What the scripted backend answers, greedily, with an adapter of that number."""
    strength = round(1000 * number * scale)
    tokens = list(ids(text))
    for _ in range(count):
        tokens.append(echo_script([ADAPTER_TOKEN, strength, *tokens] if strength else tokens))
    return bytes(tokens[-count:]).decode()


@pytest.fixture
def adapters(tmp_path: Path) -> list[Adapter | None]:
    """None, and adapters 1 and 2; the second one twice, with different scales, and the first one switched off."""
    one, two = (write_adapter(tmp_path / str(number), number) for number in (1, 2))
    return [None, Adapter(one), Adapter(two), Adapter(two, 0.25), Adapter(one, 0.0)]


def expected(text: str, count: int, adapter: Adapter | None) -> str:
    number = 0 if adapter is None else int(adapter.path.name)
    return with_adapter(text, count, number, 1.0 if adapter is None else adapter.scale)


@pytest.mark.parametrize("can_cut", [True, False])
@pytest.mark.parametrize("batch_tokens", [3, 128])
def test_each_answer_is_as_if_alone(serve, adapters, can_cut, batch_tokens) -> None:
    engine = serve(can_cut=can_cut, batch_tokens=batch_tokens)
    # All share a beginning, so a prefix that was computed with the wrong adapter would be found.
    asked = [(f"a shared beginning {number % 3}", adapters[number % 5]) for number in range(25)]
    streams = [ask(engine, text, 12, adapter=adapter) for text, adapter in asked]
    for stream, (text, adapter) in zip(streams, asked, strict=True):
        assert stream.result().text == expected(text, 12, adapter)
    wait_quiet(engine)
    assert sorted(engine.backend.opened) == sorted({adapter.path for adapter in adapters if adapter})
    assert engine.stats().adapters == 2


def test_requests_of_one_adapter_share_a_decode_and_those_of_two_do_not(serve, adapters) -> None:
    engine = serve(step_seconds=0.01)
    with at_once(engine):
        streams = [ask(engine, f"{number}", 10, adapter=adapters[number % 2]) for number in range(8)]
    for stream in streams:
        stream.result()
    sizes = [len(chunks) for chunks in engine.backend.decodes]
    assert max(sizes) == 4
    assert len(sizes) >= 2 * 10


def test_a_prefix_is_kept_for_its_adapter_only(serve, adapters) -> None:
    engine = serve()
    text = "a beginning that is long enough to be worth it"
    for adapter in adapters:
        first = ask(engine, text, 3, adapter=adapter).result()
        assert first.usage.cached_prompt_tokens == 0, adapter
        again = ask(engine, text, 3, adapter=adapter).result()
        assert again.usage.cached_prompt_tokens == len(ids(text)) - 1
        assert again.text == first.text == expected(text, 3, adapter)
    wait_quiet(engine)
    assert engine.stats().kept_prefixes >= len(adapters)


def test_one_that_waits_for_a_shared_beginning_waits_for_its_own_kind(serve, adapters) -> None:
    engine = serve(batch_tokens=8)
    text = "a long beginning of some forty characters or so"
    with at_once(engine):
        streams = [ask(engine, text, 4, adapter=adapter) for adapter in adapters for _ in range(2)]
    cached = [stream.result().usage.cached_prompt_tokens for stream in streams]
    assert cached[::2] == [0] * 5
    assert all(count > 20 for count in cached[1::2])


def test_what_is_no_adapter_fails_its_own_request(serve, adapters, tmp_path: Path) -> None:
    engine = serve()
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"nothing of the kind")
    good = ask(engine, "good", 20, adapter=adapters[1])
    bad = [ask(engine, "bad", 20, adapter=Adapter(path)) for path in (wrong, tmp_path / "missing")]
    for stream in bad:
        with pytest.raises(AdapterError, match="no scripted adapter"):
            stream.result()
    assert good.result().text == expected("good", 20, adapters[1])
    wait_quiet(engine)
    assert engine.stats().failed == 2
    # It may be put right.
    write_adapter(wrong, 1)
    assert ask(engine, "bad", 5, adapter=Adapter(wrong)).result().text == with_adapter("bad", 5, 1)


def test_an_adapter_whose_files_change_is_not_used_any_more(serve, adapters) -> None:
    engine = serve()
    adapter = adapters[1]
    ask(engine, "x", 3, adapter=adapter).result()
    write_adapter(adapter.path, 2)
    os.utime(adapter.path, ns=(1, 1))
    with pytest.raises(AdapterError, match="changed"):
        ask(engine, "x", 3, adapter=adapter).result()
    adapter.path.unlink()
    assert ask(engine, "x", 3, adapter=adapter).result().text == with_adapter("x", 3, 1)


def test_a_failure_in_one_group_is_not_the_others(serve, adapters) -> None:
    engine = serve(fail_on=lambda chunks: any(ord("!") in chunk.tokens for chunk in chunks))
    asked = [("good", None), ("bad!", adapters[1]), ("fine", adapters[1]), ("well", adapters[2]), ("worse!", None)]
    streams = [ask(engine, text, 15, adapter=adapter) for text, adapter in asked]
    for stream, (text, adapter) in zip(streams, asked, strict=True):
        if "!" in text:
            with pytest.raises(DecodeError, match="scripted failure"):
                stream.result()
        else:
            assert stream.result().text == expected(text, 15, adapter)
    wait_quiet(engine)
    assert engine.stats().failed == 2


@pytest.mark.parametrize("can_cut", [True, False])
def test_a_small_cache_preempts_among_all_adapters(serve, adapters, can_cut) -> None:
    engine = serve(context_length=120, cache_tokens=120, batch_tokens=16, can_cut=can_cut)
    asked = [(f"prompt {number}", adapters[number % 4]) for number in range(12)]
    with at_once(engine):
        streams = [ask(engine, text, 40, adapter=adapter) for text, adapter in asked]
    for stream, (text, adapter) in zip(streams, asked, strict=True):
        assert stream.result().text == expected(text, 40, adapter)
    wait_quiet(engine)
    assert engine.stats().preemptions > 0


def test_a_cancelled_group_leaves_the_others_alone(serve, adapters) -> None:
    engine = serve(step_seconds=0.02)
    with at_once(engine):
        gone = [ask(engine, f"gone {number}", 400, adapter=adapters[1]) for number in range(3)]
        stays = ask(engine, "stays", 30, adapter=adapters[2])
    wait_until(lambda: engine.backend.decodes, "all run")
    for stream in gone:
        stream.cancel()
    assert stays.result().text == expected("stays", 30, adapters[2])
    wait_quiet(engine)
    for stream in gone:
        with pytest.raises(RequestCancelled):
            stream.result()


def test_asking_early_whether_an_adapter_fits(serve, adapters, tmp_path: Path) -> None:
    engine = serve()
    engine.open_adapter(adapters[1].path).result(10)
    engine.open_adapter(adapters[1].path).result(10)
    assert engine.backend.opened == [adapters[1].path]
    with pytest.raises(AdapterError):
        engine.open_adapter(tmp_path / "missing").result(10)
    cancelled = engine.open_adapter(adapters[2].path)
    cancelled.cancel()
    engine.open_adapter(adapters[1].path).result(10)


def test_an_engine_that_is_closed_opens_nothing(serve, adapters) -> None:
    engine: Engine = serve()
    engine.close()
    with pytest.raises(EngineClosed):
        engine.open_adapter(adapters[1].path)


def test_who_waits_for_an_adapter_hears_of_the_end(serve, adapters, tmp_path: Path) -> None:
    class Slow(ScriptedBackend):
        def open_adapter(self, path: Path) -> None:
            started.append(path)
            wait_until(lambda: engine.closed, "the engine closes")
            super().open_adapter(path)

    started: list[Path] = []
    engine = serve(kind=Slow)
    first = engine.open_adapter(adapters[1].path)
    wait_until(lambda: started, "the first is being opened")
    second = engine.open_adapter(adapters[2].path)
    engine.close()
    first.result(10)
    with pytest.raises(EngineClosed):
        second.result(10)


def test_who_waits_for_an_adapter_hears_of_a_bug(serve, adapters, caplog) -> None:
    class Buggy(ScriptedBackend):
        def open_adapter(self, path: Path) -> None:
            started.append(path)
            wait_until(lambda: len(futures) == 2, "both are asked for")
            raise RuntimeError("a bug")

    started: list[Path] = []
    futures: list = []
    engine = serve(kind=Buggy)
    futures.append(engine.open_adapter(adapters[1].path))
    wait_until(lambda: started, "the first is being opened")
    futures.append(engine.open_adapter(adapters[2].path))
    for future in futures:
        with pytest.raises(DecodeError, match="RuntimeError: a bug"):
            future.result(10)
    assert "unexpected" in caplog.text


def test_one_whose_adapter_is_being_opened_is_counted(serve, adapters) -> None:
    class Slow(ScriptedBackend):
        def open_adapter(self, path: Path) -> None:
            counted.append((engine.stats().waiting, engine.stats().running, engine.idle_seconds()))
            super().open_adapter(path)

    counted: list = []
    engine = serve(kind=Slow)
    ask(engine, "x", 3, adapter=adapters[1]).result()
    assert counted == [(1, 0, 0.0)]


def test_a_backend_without_adapters_says_so(serve, adapters) -> None:
    class Plain(ScriptedBackend):
        def open_adapter(self, path: Path) -> None:
            raise UnsupportedFeature("This backend takes no adapters.")

    engine = serve(kind=Plain)
    with pytest.raises(UnsupportedFeature):
        ask(engine, "x", 3, adapter=adapters[1]).result()
    assert ask(engine, "x", 3).result().text == expected("x", 3, None)


def test_two_adapters_do_not_wait_for_each_others_beginning() -> None:
    house = House(batch_tokens=8)
    first, other, same = (house.add(PREFIX, adapter=ADAPTERS[number]) for number in (1, 2, 1))
    house.step()
    assert house.scheduler.running == [first, other]
    assert same.waits_for == (first, len(PREFIX) - 1)
    house.run()
