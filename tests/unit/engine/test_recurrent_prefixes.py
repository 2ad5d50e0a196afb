"""A recurrent state cannot be cut: what is shared is copied from states that were left on the way."""

from __future__ import annotations

import pytest

from local_llms.engine.scheduler import WORTH_WAITING
from tests.unit.engine.scheduler_house import ADAPTERS, PREFIX, House


def house(**backend: object) -> House:
    return House(can_cut=False, context_length=10_000, cache_tokens=100_000, **backend)


def kept(one: House) -> list[int]:
    return sorted(len(one.backend.sequences[number]) for number in one.scheduler._kept)


@pytest.mark.parametrize("count", [2, 12])
@pytest.mark.parametrize("late", [0, 1, 2])
def test_a_prefix_that_is_shared_by_several_at_once_is_computed_once(count: int, late: int) -> None:
    # Also where the others come while it is being read: 60 tokens in chunks of 20.
    one = house(batch_tokens=20, max_parallel=16)
    first = one.add([*PREFIX, 100], answer=5)
    for _ in range(late):
        one.step()
    others = [one.add([*PREFIX, 101 + number], answer=5) for number in range(count - 1)]
    one.run()
    assert one.computed == len(PREFIX) + count * 5
    assert first.cached == 0
    assert {other.cached for other in others} == {len(PREFIX)}


def test_several_contexts_at_once() -> None:
    one = house(max_parallel=16)
    contexts = [[number, *PREFIX] for number in range(4)]
    for number in range(16):
        one.add([*contexts[number % 4], 100 + number], answer=2)
    one.run()
    assert one.computed == 4 * len(contexts[0]) + 16 * 2


def test_one_after_the_other_the_third_finds_what_the_second_left() -> None:
    one = house()
    asked = []
    for number in range(4):
        asked.append(one.add([*PREFIX, 100 + number, 1, 2], answer=3))
        one.run()
    # The first did not know where others would part from it.
    assert [request.cached for request in asked] == [0, 0, 60, 60]


def test_a_conversation_goes_on_from_the_end_of_the_prompt_however_its_answer_was_spelled() -> None:
    one = house()
    first = one.add(PREFIX, answer=8)
    one.run()
    answer = first.tokens[60:]
    second = one.add([*PREFIX, *answer, 7, 7])
    one.run()
    assert second.cached == 60 + 7, "its last token was sampled and not computed"
    third = one.add([*PREFIX, *answer[:3], 9, 9, 9, 9])
    one.run()
    assert third.cached == 60


def test_the_same_prompt_again_costs_one_token_from_the_third_time_on() -> None:
    one = house()
    asked = []
    for _ in range(3):
        asked.append(one.add(PREFIX, answer=4))
        one.run()
    assert [request.cached for request in asked] == [0, 0, 59]


def test_a_short_shared_beginning_is_not_worth_waiting_for() -> None:
    one = house()
    shared = PREFIX[: WORTH_WAITING - 1]
    both = [one.add([*shared, 100, *range(20)]), one.add([*shared, 101, *range(20)])]
    assert one.step().sequences == both
    one.run()
    assert kept(one) == [36, 36]


def test_a_state_is_kept_once() -> None:
    one = house()
    for _ in range(4):
        one.add(PREFIX[:40])
        one.run()
    assert kept(one) == [39, 40]


def test_states_make_room_for_requests() -> None:
    one = house(max_sequences=3, max_parallel=3)
    for number in range(9):
        one.add([number // 3, *PREFIX, 100 + number], answer=3)
    one.run()
    assert len(one.done) == 9
    assert one.scheduler.preemptions == 0


def test_other_adapters_share_nothing() -> None:
    one = house()
    both = [one.add([*PREFIX, 100 + number], answer=2, adapter=ADAPTERS[number]) for number in range(2)]
    one.run()
    assert [request.cached for request in both] == [0, 0]


def test_a_text_that_is_scored_leaves_nothing_on_the_way() -> None:
    one = house()
    one.add([*PREFIX, 100])
    one.run()
    scored = one.add([*PREFIX, 101])
    scored.scored = True
    step = one.step()
    assert [len(chunk.tokens) for chunk in step.chunks] == [61]


def test_who_waits_for_one_that_goes_goes_on_from_where_that_one_came() -> None:
    one = house(batch_tokens=16)
    first = one.add([*PREFIX, 1])
    waits = one.add([*PREFIX, 2])
    one.step()
    del one.wanted[first]
    one.move(one.scheduler.finish(first))
    one.run()
    assert waits.cached == 16
