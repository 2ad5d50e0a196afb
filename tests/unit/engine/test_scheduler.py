"""The scheduler on a backend that counts its cells and refuses what breaks the protocol."""

from dataclasses import replace

import pytest

from local_llms.backends.base import Chunk
from local_llms.engine.request import Sequence
from local_llms.engine.scheduler import WORTH_WAITING, Scheduler
from local_llms.engine.step import Step
from tests.unit.engine.scheduler_house import PREFIX, House, Liar


def chunks_of(step: Step, sequence: Sequence) -> list[Chunk]:
    return [chunk for chunk, one in zip(step.chunks, step.sequences, strict=True) if one is sequence]


def test_one_request_reads_its_prompt_and_decodes() -> None:
    house = House(batch_tokens=10)
    sequence = house.add(list(range(25)), answer=3)
    house.run()
    sizes = [[len(chunk.tokens) for chunk in decode] for decode in house.backend.decodes]
    assert sizes == [[10], [10], [5], [1], [1]]
    assert [decode[0].logits for decode in house.backend.decodes] == ["none", "none", "last", "last", "last"]
    assert sequence.cached == 0


def test_requests_join_and_leave_between_steps() -> None:
    house = House()
    first = house.add([1, 2, 3], answer=10)
    house.step()
    second = house.add([9, 8, 7], answer=2)
    assert [len(chunk.tokens) for chunk in house.step().chunks] == [1, 3]
    assert [len(chunk.tokens) for chunk in house.step().chunks] == [1, 1]
    assert second in house.done
    assert [len(chunk.tokens) for chunk in house.step().chunks] == [1]
    assert first not in house.done


def test_a_long_prompt_stalls_nobody() -> None:
    house = House(cache_tokens=3000)
    decoding = [house.add([number, 1], answer=200) for number in range(3)]
    house.step()
    house.add([7] * 640)
    for _ in range(11):
        step = house.step()
        assert all(chunks_of(step, sequence) for sequence in decoding)
    assert house.done, "the long prompt was not read in as few steps as there was room for"


def test_prompts_are_read_first_where_nobody_watches() -> None:
    house = House(cache_tokens=3000)
    decoding = [house.add([number, 1], answer=20, watched=False) for number in range(3)]
    house.step()
    house.add([7] * 640, watched=False)
    for _ in range(10):
        step = house.step()
        assert not any(chunks_of(step, sequence) for sequence in decoding)
        assert sum(len(chunk.tokens) for chunk in step.chunks) == 64
    decoding[0].watched = True
    house.add([8] * 640, watched=False)
    step = house.step()
    assert all(chunks_of(step, sequence) for sequence in decoding), "one that is watched brings the others along"


def test_where_prompts_find_no_room_the_unwatched_go_on() -> None:
    house = House(cache_tokens=100, batch_tokens=64)
    old = house.add([1] * 50, answer=30, watched=False)
    house.step()
    house.add([2] * 60, answer=3, watched=False)
    house.run()
    assert house.done[0] is old
    assert len(house.done) == 2


def test_a_short_prompt_does_not_wait_behind_a_long_one() -> None:
    house = House()
    house.add([7] * 640)
    house.step()
    short = [house.add([number] * 15) for number in range(3)]
    house.step()
    assert [sequence in house.done for sequence in short] == [True, True, False]
    house.step()
    assert short[2] in house.done


def test_a_long_prompt_goes_on_however_many_short_ones_come() -> None:
    house = House(cache_tokens=5000)
    long = house.add([7] * 320)
    for number in range(10):
        assert long in house.wanted
        for more in range(4):
            house.add([100 + number, more] * 8)
        step = house.step()
        assert sum(len(chunk.tokens) for chunk in chunks_of(step, long)) >= 32
        assert sum(len(chunk.tokens) for chunk in step.chunks) == 64
    assert long in house.done


def test_long_prompts_are_read_one_after_the_other() -> None:
    house = House(cache_tokens=5000)
    first, second = house.add([1] * 200), house.add([2] * 200)
    assert house.step().sequences == [first]
    house.run()
    assert house.done == [first, second]
    assert len(house.backend.decodes) == 7


def test_the_worker_can_make_chunks_smaller_while_others_decode() -> None:
    house = House()
    house.add([1], answer=50)
    house.step()
    house.scheduler.prompt_chunk = 8
    long = house.add([7] * 40)
    assert [len(chunk.tokens) for chunk in chunks_of(house.step(), long)] == [8]


def test_many_that_decode_fit_into_a_small_batch() -> None:
    house = House(batch_tokens=4, max_parallel=16)
    for number in range(10):
        house.add([number, 1, 2], answer=5)
    house.run()
    assert len(house.done) == 10


@pytest.mark.parametrize("count", [2, 12])
@pytest.mark.parametrize("late", [0, 1, 2])
def test_a_shared_prefix_is_computed_once(count: int, late: int) -> None:
    # Also where the others come while it is being read: 60 tokens in chunks of 20.
    house = House(batch_tokens=20, max_parallel=16)
    first = house.add([*PREFIX, 100], answer=5)
    for _ in range(late):
        house.step()
    others = [house.add([*PREFIX, 101 + number], answer=5) for number in range(count - 1)]
    house.run()
    assert house.computed == len(PREFIX) + count * 5
    assert first.cached == 0
    assert {other.cached for other in others} == {len(PREFIX)}


def test_equal_prompts_are_computed_once_but_for_the_last_token() -> None:
    house = House(max_parallel=16)
    for _ in range(5):
        house.add([*PREFIX, 1], answer=3)
    house.run()
    assert house.computed == len(PREFIX) + 5 * 3


def test_a_short_shared_beginning_is_not_worth_waiting_for() -> None:
    house = House()
    shared = PREFIX[: WORTH_WAITING - 1]
    both = [house.add([*shared, 100, *range(20)]), house.add([*shared, 101, *range(20)])]
    step = house.step()
    assert step.sequences == both


def test_several_contexts_at_once() -> None:
    house = House(max_parallel=16, cache_tokens=2000)
    contexts = [[number, *PREFIX] for number in range(4)]
    for number in range(16):
        house.add([*contexts[number % 4], 100 + number], answer=2)
    house.run()
    assert house.computed == 4 * len(contexts[0]) + 16 * 2


def test_a_finished_answer_is_the_beginning_of_the_next_prompt() -> None:
    house = House()
    first = house.add(PREFIX, answer=5)
    house.run()
    # The last token of an answer was sampled and not computed.
    second = house.add([*first.tokens, 5, 6, 7], answer=1)
    house.run()
    assert second.cached == len(first.tokens) - 1


def test_what_is_kept_twice_is_kept_once() -> None:
    house = House()
    for length in (20, 40, 60, 30, 60):
        house.add(PREFIX[:length])
        house.run()
        assert len(house.backend.sequences) == 1
    assert house.computed == 60 + 2
    assert house.scheduler.cells == 60


def test_using_a_prefix_keeps_it_young_although_nothing_new_is_kept() -> None:
    house = House(cache_tokens=150)
    for number, length in ((1, 60), (2, 60), (1, 40)):
        house.add([number] * length)
        house.run()
    house.add([3] * 60)
    house.run()
    assert {tokens[0] for tokens in house.backend.sequences.values()} == {1, 3}


def test_the_least_recently_used_prefix_goes_first() -> None:
    house = House(cache_tokens=200)
    prompts = [[number] * 60 for number in range(3)]
    for prompt in prompts:
        house.add(prompt)
        house.run()
    house.add([*prompts[0], 9])
    house.run()
    house.add([77] * 50)
    house.run()
    kept = {tuple(tokens[:60]) for tokens in house.backend.sequences.values()}
    assert tuple(prompts[0]) in kept
    assert tuple(prompts[1]) not in kept


def test_sequences_are_found_by_giving_up_prefixes() -> None:
    house = House(max_sequences=2, max_parallel=2)
    for number in range(6):
        house.add([number] * 20)
        house.run()
    house.add([1] * 20, answer=4)
    house.add([2] * 20, answer=4)
    house.run()
    assert len(house.done) == 8


def test_the_only_sequence_can_be_given_up_although_it_begins_alike() -> None:
    house = House(max_sequences=1, max_parallel=1)
    house.add(PREFIX)
    house.add([*PREFIX, 1, 2])
    house.run()
    assert len(house.done) == 2


def test_a_backend_that_holds_one_sequence_finishes_one_request_first() -> None:
    house = House(max_parallel=8)
    scheduler = Scheduler(replace(house.backend.info, max_running=1), max_parallel=8)
    for number in range(3):
        scheduler.add(Sequence(prompt_length=4, tokens=[number] * 4))
    step = scheduler.plan()
    assert scheduler.max_parallel == 1
    assert len(step.chunks) == len(scheduler.running) == 1
    assert len(scheduler.waiting) == 2


def test_the_youngest_makes_room_and_finishes_later() -> None:
    house = House(cache_tokens=100)
    old = house.add([1] * 20, answer=60)
    young = house.add([2] * 10, answer=60)
    house.run()
    assert house.scheduler.preemptions >= 1
    assert old.preempted == 0
    assert young.preempted >= 1
    assert house.done == [old, young]
    assert len(young.tokens) == 70
    # It was not let in again and again: its tokens were computed twice at most.
    assert house.computed <= 20 + 60 + 2 * 70


def test_tokens_computed_twice_do_not_count_as_cached() -> None:
    house = House(cache_tokens=100)
    shared = PREFIX[: WORTH_WAITING - 1]
    house.add([*shared, 100], answer=60)
    young = house.add([*shared, 101], answer=60)
    house.run()
    assert young.preempted
    assert young.cached == 0


@pytest.mark.parametrize("answer", range(24, 34))
def test_a_younger_prompt_waits_rather_than_being_thrown_away(answer: int) -> None:
    house = House(cache_tokens=200)
    olds = [house.add([number] * 10, answer) for number in range(4)]
    house.step()
    house.scheduler.prompt_chunk = 2
    young = house.add([9] * 70)
    house.run()
    # The four leave 160 cells less one per step each; only where they need even those, the young one must go.
    crowded = answer > 28
    assert young.preempted == crowded
    assert {old.preempted for old in olds} == {0}


def test_prompts_that_are_still_to_be_read_count_as_room_taken() -> None:
    house = House(cache_tokens=100)
    first, second = house.add([1] * 60), house.add([2] * 60)
    house.step()
    assert (first in house.done, second.number) == (True, None)
    house.run()
    assert house.scheduler.preemptions == 0


def test_who_does_not_fit_is_not_overtaken() -> None:
    house = House(cache_tokens=100)
    house.add([1] * 20, answer=30)
    big = house.add([2] * 70)
    small = house.add([3])
    house.step()
    assert big.number is None
    assert small.number is None
    house.run()
    assert house.done.index(big) <= house.done.index(small)


def test_who_waits_for_a_prefix_lets_others_pass_and_is_served() -> None:
    house = House(batch_tokens=16, max_parallel=3)
    first = house.add([*PREFIX, 1])
    waits = house.add([*PREFIX, 2])
    other = house.add([9, 9])
    house.step()
    assert waits.number is None
    assert other in house.done
    assert first.number is not None
    house.run()
    assert waits.cached == len(PREFIX)


@pytest.mark.parametrize("keep", [True, False])
def test_who_waits_for_one_that_goes_computes_the_rest(keep: bool) -> None:
    house = House(batch_tokens=16)
    first = house.add([*PREFIX, 1])
    waits = house.add([*PREFIX, 2])
    house.step()
    del house.wanted[first]
    house.move((house.scheduler.finish if keep else house.scheduler.forget)(first))
    house.run()
    assert waits.cached == (16 if keep else 0)
    assert house.computed == len(PREFIX) + 1 + (0 if keep else 16)


def test_a_waiting_request_can_be_taken_out() -> None:
    house = House(max_parallel=1)
    house.add([1], answer=3)
    second = house.add([2])
    house.step()
    del house.wanted[second]
    assert house.scheduler.finish(second) == []
    house.run()
    assert not house.scheduler.busy


def test_nothing_is_kept_of_a_forgotten_request() -> None:
    house = House()
    sequence = house.add(PREFIX, answer=5)
    house.step()
    del house.wanted[sequence]
    house.move(house.scheduler.forget(sequence))
    assert house.backend.sequences == {}
    assert house.scheduler.cells == 0


def test_a_recurrent_state_is_reused_whole_only() -> None:
    house = House(can_cut=False)
    first = house.add(PREFIX, answer=3)
    house.run()
    assert house.add([*PREFIX[:50], 5]) is not None
    house.run()
    again = house.add([*first.tokens, 5, 6])
    house.run()
    assert again.cached == len(first.tokens) - 1
    assert house.done[1].cached == 0


def test_a_backend_with_less_room_than_it_says_is_served_all_the_same() -> None:
    house = House(kind=Liar, batch_tokens=32)
    for number in range(4):
        house.add([number] * 10, answer=20)
    house.run(limit=400)
    assert len(house.done) == 4
    assert not house.refused
    # And what it had learned is forgotten with the last one.
    assert house.scheduler._capacity == 1000


def test_one_that_cannot_fit_is_refused_and_the_others_are_not() -> None:
    house = House(kind=Liar, batch_tokens=32)
    house.add([1] * 10, answer=10)
    big = house.add([2] * 60)
    house.add([3] * 10, answer=10)
    house.run(limit=400)
    assert house.refused == [big]
    assert len(house.done) == 2
