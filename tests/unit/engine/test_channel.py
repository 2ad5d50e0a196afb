"""A channel without locks: nothing is lost between a writer and a reader, however they meet."""

import threading
import time

from local_llms.engine.channel import Channel
from local_llms.engine.stream import Stream
from local_llms.errors import RequestCancelled
from local_llms.types import TokenEvent


def event(index: int) -> TokenEvent:
    return TokenEvent(index, 97, "a")


def test_what_is_there_already_wakes_at_once() -> None:
    channel, woken = Channel(), []
    channel.push(event(0))
    channel.call_when_ready(lambda: woken.append("token"), for_tokens=True)
    assert woken == ["token"]
    channel.call_when_ready(lambda: woken.append("outcome"), for_tokens=False)
    assert woken == ["token"]
    channel.close(ValueError())
    assert woken == ["token", "outcome"]
    for for_tokens in (True, False):
        channel.call_when_ready(lambda: woken.append("late"), for_tokens=for_tokens)
    assert woken == ["token", "outcome", "late", "late"]


def test_a_reader_is_woken_once() -> None:
    channel, woken = Channel(), []
    channel.call_when_ready(lambda: woken.append(1), for_tokens=True)
    assert woken == []
    for index in range(5):
        channel.push(event(index))
    assert woken == [1]
    assert [channel.next_event() for _ in range(6)] == [*map(event, range(5)), None]


def test_only_the_first_outcome_counts() -> None:
    channel, first = Channel(), ValueError("first")
    assert channel.outcome is None
    channel.close(first)
    channel.close(KeyError("second"))
    assert channel.outcome is first


def test_a_wake_may_close_the_channel_that_wakes_it() -> None:
    channel = Channel()
    channel.call_when_ready(lambda: channel.close(ValueError()), for_tokens=True)
    channel.push(event(0))
    assert isinstance(channel.outcome, ValueError)


def test_no_wakeup_is_lost_between_two_threads() -> None:
    count = 3000
    for _ in range(3):
        channel = Channel()
        stream = Stream(channel, lambda: None)

        def write(channel: Channel = channel) -> None:
            for index in range(count):
                channel.push(event(index))
                if index % 7 == 0:
                    time.sleep(0)
            channel.close(RequestCancelled("the end"))

        writer = threading.Thread(target=write)
        seen: list[int] = []

        def read(stream: Stream = stream, seen: list[int] = seen) -> None:
            try:
                for one in stream:
                    seen.append(one.index)
            except RequestCancelled:
                seen.append(-1)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        writer.start()
        writer.join()
        reader.join(20)
        assert not reader.is_alive(), "the reader waits for ever"
        assert seen == [*range(count), -1]
