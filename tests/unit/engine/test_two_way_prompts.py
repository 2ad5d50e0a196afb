"""A model that reads its prompt in both directions: only a beginning that holds all of that part is of use."""

from local_llms.testing.scripted import ScriptedBackend
from tests.unit.engine.scheduler_house import House

MARK = 199
QUESTION = [number % 150 for number in range(60)]


class TwoWay(ScriptedBackend):
    def __init__(self, **options):
        super().__init__(**options)
        self.tell(bidirectional_until=MARK)


def test_a_shared_beginning_is_neither_copied_nor_waited_for() -> None:
    house = House(kind=TwoWay, batch_tokens=256)
    alike = [house.add([*QUESTION, number, MARK]) for number in range(3)]
    step = house.step()
    assert len(step.chunks) == 3, "a request waited for another's beginning"
    assert not step.moves
    house.run()
    later = house.add([*QUESTION, 7, MARK])
    house.run()
    assert [sequence.cached for sequence in [*alike, later]] == [0] * 4


def test_a_conversation_that_goes_on_behind_the_mark_is_copied() -> None:
    house = House(kind=TwoWay)
    house.add([*QUESTION, MARK, 3, 4])
    house.run()
    longer = house.add([*QUESTION, MARK, 3, 5])
    house.run()
    assert longer.cached == len(QUESTION) + 2


def test_without_the_mark_nothing_is_copied() -> None:
    house = House(kind=TwoWay)
    house.add([*QUESTION, MARK])
    house.run()
    other = house.add([*QUESTION, 1])
    house.run()
    assert other.cached == 0
