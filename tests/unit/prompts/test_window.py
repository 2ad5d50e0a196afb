"""What is left out of a conversation that is too long."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from local_llms.prompts import encode_within
from local_llms.types import Message

S, U, A, T = "system", "user", "assistant", "tool"


def conversation(roles: str, size: int = 10) -> list[Message]:
    names = {"s": S, "u": U, "a": A, "t": T}
    return [Message(names[role], f"{role}{number:02}".ljust(size, ".")) for number, role in enumerate(roles)]


def encode(messages) -> list[int]:
    return [*b"^", *b"".join(message.content.encode() for message in messages)]


def roles(messages) -> str:
    return "".join(message.role[0] for message in messages)


@pytest.mark.parametrize(
    ("given_roles", "most", "dropped", "left"),
    [
        ("suauau", 61, "", "suauau"),
        ("suauau", 60, "ua", "suau"),
        ("suauau", 40, "uaua", "su"),
        ("suauau", 5, "uaua", "su"),
        ("uauau", 50, "ua", "uau"),
        ("auau", 40, "a", "uau"),
        ("u", 3, "", "u"),
        ("su", 3, "", "su"),
        ("uatatauat", 70, "uatata", "uat"),
        ("usausau", 60, "ua", "ssuau"),
        ("a", 3, "", "a"),
        ("s", 3, "", "s"),
    ],
)
def test_the_oldest_turns_go_whole(given_roles, most, dropped, left) -> None:
    messages = conversation(given_roles)
    ids, out = encode_within(messages, encode, most)
    assert roles(out) == dropped
    kept = [message for message in messages if message not in out]
    # The order of what is left is as it was.
    assert sorted(roles(kept)) == sorted(left)
    assert ids == encode(kept)


@given(st.text("suat", min_size=1, max_size=30), st.integers(1, 400), st.integers(3, 20))
def test_as_few_as_suffice(given_roles: str, most: int, size: int) -> None:
    messages = conversation(given_roles, size)
    calls = 0

    def counted(some) -> list[int]:
        nonlocal calls
        calls += 1
        return encode(some)

    ids, out = encode_within(messages, counted, most)
    kept = [message for message in messages if message not in out]
    assert ids == encode(kept)
    assert S not in {message.role for message in out}
    assert kept[-1:] == messages[-1:]
    turns = [number for number, message in enumerate(messages) if message.role == U]
    if len(ids) > most:
        # Nothing more could go: the last turn and the system messages are left.
        assert sum(message.role == U for message in kept) <= 1
    if out:
        # One turn less would have been too little.
        last_turn = next((at for at in reversed(turns) if messages[at] in out), 0)
        back = [message for message in messages if message not in out or messages.index(message) >= last_turn]
        assert len(encode(back)) > most
    assert calls <= 2 + len(turns).bit_length() + 1
