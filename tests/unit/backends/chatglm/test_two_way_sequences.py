"""ChatGLM-6B reads a prompt in both directions up to <sop>: chunks, copies and cuts must not show in the rows."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from local_llms.backends.base import Backend, Chunk
from local_llms.errors import CacheFull, DecodeError

GMASK, SOP = 1, 2
WORDS = [(37 * number) % 400 + 20 for number in range(200)]
PROMPT = [*WORDS[:20], GMASK, SOP]
OTHER = [*WORDS[:12], *WORDS[90:95], GMASK, SOP]
ANSWER = WORDS[50:56]

Rows = NDArray[np.float32]


def whole(backend: Backend, ids: list[int]) -> Rows:
    """The rows from <sop> on, of all tokens in one call."""
    rows = backend.decode([Chunk(7, 0, ids, "all")]).copy()
    backend.free(7)
    return rows[ids.index(SOP) :]


def close(found: Rows, expected: Rows) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_what_precedes_sees_what_follows(backend: Backend) -> None:
    """So that the tests here test something: a causal reading gives other rows."""
    first = backend.decode([Chunk(0, 0, PROMPT, "all")])[0].copy()
    changed = backend.decode([Chunk(1, 0, [*PROMPT[:19], 444, GMASK, SOP], "all")])[0]
    assert np.abs(first - changed).max() > 1e-2


@pytest.mark.parametrize("sizes", [[22], [1] * 22, [10, 12], [20, 1, 1], [21, 1], [3, 18, 1]])
def test_a_prompt_in_pieces(backend: Backend, sizes: list[int]) -> None:
    expected = whole(backend, [*PROMPT, *ANSWER])
    for logits in ("none", "last"):
        start = 0
        for size in sizes:
            last = start + size == len(PROMPT)
            rows = backend.decode([Chunk(0, start, PROMPT[start : start + size], "last" if last else logits)])
            start += size
        close(rows, expected[:1])
        for place, token in enumerate(ANSWER):
            close(backend.decode([Chunk(0, start + place, [token])]), expected[place + 1 : place + 2])
        backend.free(0)


def test_a_piece_that_goes_past_the_mark(backend: Backend) -> None:
    expected = whole(backend, [*PROMPT, *ANSWER])
    backend.decode([Chunk(0, 0, PROMPT[:9], "none")])
    close(backend.decode([Chunk(0, 9, [*PROMPT[9:], *ANSWER], "last")]), expected[-1:])


def test_prompts_and_answers_in_one_batch(backend: Backend) -> None:
    """Sequences that begin, go on and answer in one call compute what each does alone."""
    alone = [whole(backend, [*prompt, *ANSWER]) for prompt in (PROMPT, OTHER)]
    backend.decode([Chunk(0, 0, PROMPT, "none"), Chunk(2, 0, OTHER[:5], "none")])
    rows = backend.decode([Chunk(2, 5, OTHER[5:]), Chunk(0, len(PROMPT), ANSWER[:1]), Chunk(1, 0, PROMPT)]).copy()
    close(rows, np.stack([alone[1][0], alone[0][1], alone[0][0]]))
    rows = backend.decode(
        [Chunk(1, len(PROMPT), ANSWER[:1]), Chunk(0, len(PROMPT) + 1, ANSWER[1:], "all"), Chunk(3, 0, OTHER)]
    )
    close(rows, np.stack([alone[0][1], *alone[0][2:], alone[1][0]]))


@pytest.mark.parametrize("length", [1, 5, 12, 20, 21, 22, 25])
def test_a_copy_and_a_cut_anywhere(backend: Backend, length: int) -> None:
    """Of a sequence that has computed an answer, for one that goes on in another way."""
    held = [*PROMPT, *ANSWER]
    follows = OTHER[-7:] if length < len(PROMPT) else WORDS[70:74]
    expected = whole(backend, [*held[:length], *follows])
    backend.decode([Chunk(0, 0, held, "none")])
    backend.copy(0, 1, length)
    close(backend.decode([Chunk(1, length, follows)]), expected[-1:])
    # The source is none the worse.
    close(backend.decode([Chunk(0, len(held), WORDS[80:81])]), whole(backend, [*held, *WORDS[80:81]])[-1:])
    backend.cut(0, length)
    close(backend.decode([Chunk(0, length, follows)]), expected[-1:])


def test_a_row_is_asked_for_in_front_of_the_mark(backend: Backend) -> None:
    """Such a row sees what precedes it and no more, whatever the sequence held before."""
    expected = backend.decode([Chunk(0, 0, WORDS[:9], "all")]).copy()
    backend.free(0)
    backend.decode([Chunk(0, 0, PROMPT, "none")])
    backend.cut(0, 5)
    close(backend.decode([Chunk(0, 5, WORDS[5:9], "all")]), expected[5:])
    close(backend.decode([Chunk(0, 9, PROMPT[9:])]), whole(backend, PROMPT))


def test_computing_again_needs_no_room(backend: Backend) -> None:
    """In a cache that is full but for the last token."""
    expected = whole(backend, PROMPT)
    room = backend.info.cache_tokens
    backend.decode([Chunk(0, 0, PROMPT[:-1])])
    room -= len(PROMPT) - 1
    sequence = 1
    while room > 1:
        count = min(room - 1, backend.info.context_length)
        backend.decode([Chunk(sequence, 0, WORDS[:count], "none")])
        room, sequence = room - count, sequence + 1
    close(backend.decode([Chunk(0, len(PROMPT) - 1, [SOP])]), expected)


def test_what_is_shared_is_not_written_over(backend: Backend) -> None:
    """A copy of a beginning that is computed again gets cells of its own, or finds no room."""
    backend.decode([Chunk(0, 0, [*WORDS[:40]])])
    expected = backend.decode([Chunk(0, 40, WORDS[40:41])]).copy()
    backend.cut(0, 40)
    backend.copy(0, 1, 40)
    backend.decode([Chunk(1, 40, [GMASK, SOP])])
    close(backend.decode([Chunk(0, 40, WORDS[40:41])]), expected)
    backend.cut(0, 40)
    backend.free(1)
    backend.copy(0, 1, 40)
    backend.decode([Chunk(2, 0, WORDS[:64], "none")])
    with pytest.raises(CacheFull):
        backend.decode([Chunk(1, 40, [GMASK, SOP])])
    close(backend.decode([Chunk(0, 40, WORDS[40:41])]), expected)


def test_an_interruption_while_computing_again(backend: Backend) -> None:
    expected = whole(backend, PROMPT)
    stopped = 0
    for pause in (0.0, 0.0002, 0.0005, 0.001):
        backend.decode([Chunk(0, 0, PROMPT[:-1])])
        timer = threading.Timer(pause, backend.interrupt)
        timer.start()
        try:
            rows = backend.decode([Chunk(0, len(PROMPT) - 1, [SOP])])
        except DecodeError:
            stopped += 1
            timer.join()
            rows = backend.decode([Chunk(0, len(PROMPT) - 1, [SOP])])
        timer.join()
        close(rows, expected)
        backend.free(0)


def test_any_sequence_of_moves(backend: Backend) -> None:
    """A hundred random moves; every row is that of its tokens computed at once."""
    chance = random.Random(4)
    held: dict[int, list[int]] = {number: [] for number in range(4)}
    for _ in range(100):
        number = chance.randrange(4)
        ids = held[number]
        move = chance.random()
        if move < 0.15 and ids:
            length = chance.randint(1, len(ids))
            target = next((other for other, tokens in held.items() if not tokens), None)
            if target is not None:
                backend.copy(number, target, length)
                held[target] = ids[:length]
        elif move < 0.3 and ids:
            length = chance.randint(0, len(ids))
            backend.cut(number, length)
            held[number] = ids[:length]
        elif len(ids) < 25:
            new = chance.choices(WORDS, k=chance.randint(1, 6))
            if SOP not in ids and chance.random() < 0.4:
                new += [GMASK, SOP]
            rows = backend.decode([Chunk(number, len(ids), new, chance.choice(("none", "last")))]).copy()
            held[number] = [*ids, *new]
            if len(rows):
                close(rows, backend.decode([Chunk(9, 0, held[number])]))
                backend.free(9)
        else:
            backend.free(number)
            held[number] = []
