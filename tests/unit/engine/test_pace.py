"""How much of a prompt fits between the others' tokens."""

from __future__ import annotations

import pytest

from local_llms.engine.pace import PAUSE, SMALLEST_CHUNK, Pace


def test_nothing_is_known_before_a_prompt_was_read() -> None:
    pace = Pace()
    pace.learn(0, 4, 0.1)
    pace.learn(SMALLEST_CHUNK - 1, 0, 0.1)
    pace.learn(512, 0, 0.0)
    assert pace.chunk(512) is None


def test_reading_takes_the_time_of_a_pause() -> None:
    pace = Pace()
    pace.learn(400, 0, 2.0)
    assert pace.chunk(512) == int(200 * PAUSE)


def test_what_the_answers_take_is_not_counted() -> None:
    pace = Pace()
    pace.learn(0, 10, 1.0)
    pace.learn(100, 10, 1.5)
    assert pace.prompt_speed == pytest.approx(200)


def test_answers_that_seem_to_take_all_the_time_leave_a_share() -> None:
    pace = Pace()
    pace.learn(0, 10, 10.0)
    pace.learn(100, 10, 1.0)
    assert pace.prompt_speed == pytest.approx(400)


@pytest.mark.parametrize(("seconds", "chunk"), [(1e3, SMALLEST_CHUNK), (1e-6, 512)])
def test_the_chunk_has_bounds(seconds: float, chunk: int) -> None:
    pace = Pace()
    pace.learn(100, 0, seconds)
    assert pace.chunk(512) == chunk


def test_the_newest_steps_count_but_not_alone() -> None:
    pace = Pace()
    pace.learn(100, 0, 1.0)
    pace.learn(200, 0, 1.0)
    assert 100 < pace.prompt_speed < 200
