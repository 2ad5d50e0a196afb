"""Whatever comes, and however small the cache is: every promise holds at every step, and all are served."""

from hypothesis import given, settings
from hypothesis import strategies as st

from local_llms.engine.request import Sequence
from local_llms.testing.scripted import ScriptedBackend
from tests.unit.engine.scheduler_house import ADAPTERS, PREFIX, House, Liar

BAD = 199

REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 12),  # the step at which it comes
        st.sampled_from([0, 10, 30, 45]),  # how much of the prefix it begins with
        st.integers(1, 30),  # how many tokens of its own follow
        st.integers(1, 25),  # how long its answer is
        st.one_of(st.none(), st.none(), st.integers(1, 30)),  # the step after which it is cancelled
        st.sampled_from([False, False, False, True]),  # whether the backend fails on it
        st.sampled_from([0, 0, 1, 2, 3]),  # its adapter
        st.booleans(),  # whether its tokens are read as they come
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=150, deadline=None)
@given(
    requests=REQUESTS,
    cache_tokens=st.sampled_from([101, 130, 200, 1000]),
    batch_tokens=st.sampled_from([1, 7, 40, 200]),
    max_parallel=st.integers(1, 8),
    spare=st.integers(0, 4),
    can_cut=st.booleans(),
    lies=st.booleans(),
)
def test_every_request_is_served_whatever_comes(
    requests: list, cache_tokens: int, batch_tokens: int, max_parallel: int, spare: int, can_cut: bool, lies: bool
) -> None:
    house = House(
        kind=Liar if lies else ScriptedBackend,
        cache_tokens=cache_tokens,
        batch_tokens=batch_tokens,
        max_parallel=max_parallel,
        max_sequences=max_parallel + spare,
        can_cut=can_cut,
        fail_on=lambda chunks: any(BAD in chunk.tokens for chunk in chunks),
    )
    if lies:
        house.backend.real = 101
    arrivals = sorted(enumerate(requests), key=lambda pair: pair[1][0])
    leaves: dict[Sequence, int] = {}
    poisoned: set[Sequence] = set()
    cancelled = 0
    tick = 0
    while arrivals or house.wanted:
        while arrivals and arrivals[0][1][0] <= tick:
            number, (_, shared, own, answer, leaving, poison, kind, watched) = arrivals.pop(0)
            prompt = [*PREFIX[:shared], *[200 + number] * own, *[BAD] * poison]
            sequence = house.add(prompt, answer, ADAPTERS[kind], watched=watched)
            if poison:
                poisoned.add(sequence)
            if leaving is not None:
                leaves[sequence] = tick + leaving
        for sequence in [one for one in house.wanted if leaves.get(one, tick + 1) <= tick]:
            del house.wanted[sequence]
            house.move(house.scheduler.finish(sequence))
            house.check()
            cancelled += 1
        if house.wanted:
            house.step()
        tick += 1
        assert tick < 3000, "no end in sight"
    assert len(house.done) + len(house.refused) + cancelled == len(requests)
    assert set(house.refused) <= poisoned
    assert not poisoned.intersection(house.done)
    assert not house.scheduler.busy
    house.check()
