"""Compiled constraints are kept by content, within a bound, and threads may share them."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from local_llms.constraints import Compiler, compiler, json_document, matching, of_grammar
from local_llms.errors import ConstraintError, MissingDependency
from local_llms.testing.scripted import EOS, IM_END, ScriptedBackend


def allowed(matcher) -> set[int]:
    return set(np.flatnonzero(matcher.allowed()).tolist())


def test_equal_ones_are_compiled_once():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    maker = Compiler(ScriptedBackend())
    first = maker.compile(json_document(schema))
    assert maker.compile(json_document(dict(schema))) is first
    # Time of the processor, not of the wall: other processes do not count.
    started = time.thread_time()
    for _ in range(100):
        maker.compile(json_document(schema)).matcher([EOS])
    assert (time.thread_time() - started) / 100 < 0.001


def test_the_least_recently_used_is_given_up(monkeypatch):
    monkeypatch.setattr(compiler, "KEPT", 3)
    maker = Compiler(ScriptedBackend())
    constraints = [matching(f"[a-z]{{{n}}}") for n in range(1, 5)]
    first, second, third, fourth = constraints
    for one in (first, second, third, first, fourth):
        maker.compile(one)
    assert [maker.known(one) for one in constraints] == [True, False, True, True]


def test_large_ones_are_given_up_earlier(monkeypatch):
    monkeypatch.setattr(compiler, "KEPT_BYTES", 2500)
    maker = Compiler(ScriptedBackend())
    constraints = [matching("a" * 1000 + str(n)) for n in range(4)]
    for one in constraints:
        maker.compile(one)
    assert [maker.known(one) for one in constraints] == [False, False, True, True]
    # One alone is kept whatever its size.
    huge = matching("b" * 5000)
    maker.compile(huge)
    assert [maker.known(one) for one in (*constraints, huge)] == [False, False, False, False, True]


def test_states_do_not_disturb_each_other():
    compiled = Compiler(ScriptedBackend()).compile(matching("ab|cd"))
    one, two = compiled.matcher([EOS]), compiled.matcher([EOS])
    one.accept(ord("a"))
    assert allowed(one) == {ord("b")}
    assert allowed(two) == {ord("a"), ord("c")}


def test_every_end_token_where_the_answer_may_end():
    matcher = Compiler(ScriptedBackend()).compile(matching("ab?")).matcher([EOS, IM_END])
    assert allowed(matcher) == {ord("a")}
    assert not matcher.complete
    matcher.accept(ord("a"))
    assert allowed(matcher) == {ord("b"), EOS, IM_END}
    assert matcher.complete
    assert not matcher.finished
    matcher.accept(ord("b"))
    assert matcher.finished


def test_an_end_token_that_has_a_text_is_no_text():
    """ "e" ends the answers of this model, so it cannot stand in one."""
    matcher = Compiler(ScriptedBackend()).compile(matching("[def]{2}")).matcher([ord("e")])
    assert allowed(matcher) == {ord("d"), ord("f")}


def test_control_tokens_come_where_a_grammar_names_them():
    matcher = Compiler(ScriptedBackend()).compile(of_grammar('start: "a" <|im_start|> "b"')).matcher([EOS])
    matcher.accept(ord("a"))
    assert allowed(matcher) == {258}
    matcher.accept(258)
    assert allowed(matcher) == {ord("b")}


def test_threads_share_a_compiler():
    maker = Compiler(ScriptedBackend())

    def work(number: int) -> bool:
        matcher = maker.compile(matching(f"[a-z]{{{number % 4 + 1}}}")).matcher([EOS])
        while not matcher.finished:
            matcher.accept(next(iter(allowed(matcher))))
        return matcher.complete

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


def test_too_complex_a_grammar_is_an_error():
    with pytest.raises(ConstraintError):
        Compiler(ScriptedBackend()).compile(of_grammar("start: " + " | ".join(f'"{n}" start' for n in range(60_000))))


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingDependency, match=r'pip install "local-llms\[structured\]"'):
        Compiler(ScriptedBackend()).compile(matching("a"))
