"""The prefix tree against a plain model: a list of cells per sequence, and a backend that counts them."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from local_llms.backends.base import Chunk
from local_llms.engine.prefix_tree import PrefixTree, common_prefix
from local_llms.testing.scripted import ScriptedBackend

NUMBERS = 6
ADAPTER = st.sampled_from([None, None, "one", "two"])
TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=6)
WANTED = st.lists(st.integers(0, 2), max_size=14)


def agreement(left: list[int], right: list[int]) -> int:
    length = 0
    while length < min(len(left), len(right)) and left[length] == right[length]:
        length += 1
    return length


class AgainstABackend(RuleBasedStateMachine):
    """Whatever the scheduler may do, the tree says what the backend holds."""

    @initialize()
    def start(self) -> None:
        self.tree = PrefixTree()
        self.adapters: dict[int, str | None] = {}
        self.backend = ScriptedBackend(max_sequences=NUMBERS, cache_tokens=10_000, context_length=10_000)

    def cells(self, number: int) -> list[int]:
        return [cell for _, cell in self.backend._sequences.get(number, [])]

    @rule(number=st.integers(0, NUMBERS - 1), tokens=TOKENS, adapter=ADAPTER)
    def compute(self, number: int, tokens: list[int], adapter: str | None) -> None:
        held = self.backend.sequences
        if number in held:
            adapter = self.adapters[number]
        self.adapters[number] = adapter
        self.backend.decode([Chunk(number, len(held.get(number, [])), tokens, "none")])
        self.tree.append(number, tokens, adapter)

    @precondition(lambda self: 0 < len(self.backend.sequences) < NUMBERS)
    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        held = self.backend.sequences
        source = data.draw(st.sampled_from(sorted(held)))
        target = data.draw(st.sampled_from([number for number in range(NUMBERS) if number not in held]))
        length = data.draw(st.integers(1, len(held[source])))
        self.backend.copy(source, target, length)
        self.adapters[target] = self.adapters[source]
        self.tree.share(source, target, length)

    @rule(number=st.integers(0, NUMBERS - 1))
    def free(self, number: int) -> None:
        self.backend.free(number)
        self.tree.drop(number)

    @rule(tokens=WANTED, limit=st.integers(0, 14), adapter=ADAPTER, whole=st.booleans())
    def match(self, tokens: list[int], limit: int, adapter: str | None, whole: bool) -> None:
        held = {number: has for number, has in self.backend.sequences.items() if self.adapters[number] == adapter}
        found, length = self.tree.match(tokens, limit, adapter, whole=whole)
        wanted = tokens[:limit]
        lengths = {number: agreement(wanted, has) for number, has in held.items()}
        if whole:
            lengths = {number: length for number, length in lengths.items() if length == len(held[number])}
        assert length == max(lengths.values(), default=0)
        assert (found is None) == (length == 0)
        if found is not None:
            assert lengths[found] == length

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "tree"):
            return
        held = self.backend.sequences
        assert self.tree.cells == self.backend.cells_used
        for number in range(NUMBERS):
            assert self.tree.length(number) == len(held.get(number, []))
            others = {cell for other in held if other != number for cell in self.cells(other)}
            mine = held.get(number, [])
            alike = [other for other in held if mine and self.adapters[other] == self.adapters[number]]
            around = {other for other in alike if agreement(held[other], mine) == len(mine)} - {number}
            inside = {other for other in alike if agreement(held[other], mine) == len(held[other])} - {number}
            assert self.tree.alike(number) == (around, inside)
            assert self.tree.cells_of([number]) == len(self.cells(number))
            rest = [other for other in held if other != number]
            assert self.tree.cells_of(rest) == len(others)

    @invariant()
    def the_tree_stays_small(self) -> None:
        # Edges are joined again when sequences go: what is left has a sequence's end or a fork at each node.
        if hasattr(self, "tree"):
            roots = list(self.tree._roots.values())
            assert len(roots) == len({self.adapters[number] for number in self.backend.sequences})
            pending, nodes = roots, -len(roots)
            while pending:
                node = pending.pop()
                nodes += 1
                pending += [child for children in node.children.values() for child in children]
            assert nodes <= max(2 * len(self.backend.sequences) - 1, 0)


AgainstABackend.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestAgainstABackend = AgainstABackend.TestCase


@pytest.mark.parametrize(
    ("left", "right", "start", "expected"),
    [
        ([], [], 0, 0),
        ([1], [], 0, 0),
        ([1, 2, 3], [1, 2, 3], 0, 3),
        ([1, 2, 3], [1, 2, 4], 0, 2),
        ([1, 2, 3], [9, 2, 3], 0, 0),
        ([1, 2, 3, 4, 5], [1, 2, 3], 1, 3),
        ([1, 2, 3, 4, 5], [1, 2, 3, 9, 5], 3, 3),
    ],
)
def test_common_prefix(left: list[int], right: list[int], start: int, expected: int) -> None:
    assert common_prefix(left, right, start) == expected


def test_common_prefix_of_long_lists() -> None:
    left = list(range(5000))
    for at in (0, 1, 7, 2499, 2500, 4998, 4999):
        right = [*left[:at], -1, *left[at + 1 :]]
        assert common_prefix(left, right) == common_prefix(right, left) == at


def test_two_that_computed_the_same_alone_are_told_apart() -> None:
    tree = PrefixTree()
    tree.append(0, [1, 2, 3])
    tree.append(1, [1, 2, 3, 4])
    assert tree.cells == 7
    assert tree.match([1, 2, 3, 4, 5], 5) == (1, 4)
    tree.drop(1)
    assert (tree.cells, tree.match([1, 2, 3, 4, 5], 5)) == (3, (0, 3))
