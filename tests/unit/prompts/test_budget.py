"""The bounds of a template."""

from __future__ import annotations

import pytest

from local_llms.prompts.interpreter import budget as budgets
from local_llms.prompts.interpreter.budget import DEPTH, MEMORY, MEMORY_PER_INPUT, STEPS, Budget, Failure


class Time:
    """A clock and a thread that is given a share of it."""

    def __init__(self, share: float) -> None:
        self.now = 100.0
        self.share = share

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.now * self.share


@pytest.mark.parametrize(("share", "seconds"), [(1.0, 1.0), (0.1, 10.0)])
def test_the_time_of_the_thread_counts(monkeypatch: pytest.MonkeyPatch, share: float, seconds: float) -> None:
    time = Time(share)
    monkeypatch.setattr(budgets, "time", time)
    budget = Budget()
    start = time.now

    def work() -> None:
        while True:
            budget.step()
            time.now += 0.005

    with pytest.raises(Failure, match="longer than 1 s"):
        work()
    assert time.now - start == pytest.approx(seconds, abs=0.1)


def test_steps() -> None:
    budget = Budget()
    budget.step(STEPS)
    with pytest.raises(Failure, match="steps"):
        budget.step()


def test_memory_grows_with_what_is_given() -> None:
    budget = Budget()
    budget.allow(10)
    budget.spend(MEMORY + 10 * MEMORY_PER_INPUT)
    with pytest.raises(Failure, match="too much text"):
        budget.spend(1)


def test_depth_is_given_back() -> None:
    budget = Budget()
    for _ in range(DEPTH):
        budget.enter()
    with pytest.raises(Failure, match="nest deeper"):
        budget.enter()
    budget = Budget()
    for _ in range(10 * DEPTH):
        budget.enter()
        budget.leave()
