"""What every backend promises about computing and its sequences, as tests; see ``backend_contract``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from local_llms.backends.base import Backend, Chunk, Logits
from local_llms.errors import CacheFull, DecodeError
from local_llms.testing.vocabulary_contract import SAMPLE

# ruff: noqa: S101 (these are tests)


class SharedBackend:
    """One backend for the tests of a class, with all sequences empty at the start of each."""

    @pytest.fixture(scope="class")
    @classmethod
    def shared_backend(cls, load: Callable[[], Backend]) -> Iterator[Backend]:
        """Made once, closed at the end."""
        backend = load()
        yield backend
        backend.close()

    @pytest.fixture
    def backend(self, shared_backend: Backend) -> Backend:
        """The backend to test."""
        if shared_backend.info.can_generate:
            for sequence in range(shared_backend.info.max_sequences):
                shared_backend.free(sequence)
        return shared_backend


class SequenceContract:
    """decode, copy, cut, free, interrupt."""

    tolerance: float = 0.02
    """How much a logit may differ with the batch, as a part of the row's standard deviation."""

    interrupts: bool = False
    """Whether ``interrupt`` must stop a decode of ``batch_tokens`` tokens; else it may also be over too soon."""

    def test_rows_come_in_the_order_of_the_chunks(self, backend: Backend) -> None:
        """One row per token for "all", one for "last", none for "none", however they are mixed."""
        ids = tokens(backend, 24)
        a, b, c = ids[:5], ids[5:11], ids[11:17]
        alone = [self.fresh(backend, part, "all") for part in (a, b, c)]
        chunks = [Chunk(0, 0, a, "last"), Chunk(1, 0, b, "none"), Chunk(2, 0, c, "all"), Chunk(3, 0, b, "last")]
        rows = backend.decode(chunks).copy()
        assert rows.shape == (1 + len(c) + 1, backend.info.vocabulary_size)
        assert rows.dtype == np.float32
        self.assert_close(rows, np.concatenate([alone[0][-1:], alone[2], alone[1][-1:]]))
        assert backend.decode([Chunk(1, len(b), ids[17:18], "none")]).shape == (0, backend.info.vocabulary_size)

    def test_a_prompt_in_pieces(self, backend: Backend) -> None:
        """The last row is the same however the prompt is cut into chunks."""
        ids = tokens(backend, 30)
        whole = self.fresh(backend, ids)
        for sizes in ([1] * 30, [10, 1, 19], [29, 1]):
            start = 0
            for size in sizes:
                row = backend.decode([Chunk(0, start, ids[start : start + size])])
                start += size
            self.assert_close(row, whole)
            backend.free(0)

    def test_a_batch_computes_what_each_would_alone(self, backend: Backend) -> None:
        """Twenty greedy tokens of several sequences that begin at different steps."""
        ids = tokens(backend, 60)
        prompts = [ids[:3], ids[:20], ids[7:40], ids[40:41]]
        alone = [self.greedy(backend, prompt, 20) for prompt in prompts]
        held = [0] * len(prompts)
        for step in range(20 + len(prompts)):
            chunks: list[Chunk] = []
            places: list[tuple[int, int]] = []
            for number, prompt in enumerate(prompts):
                turn = step - number
                if 0 <= turn < 20:
                    new = prompt if turn == 0 else [alone[number][0][turn - 1]]
                    chunks.append(Chunk(number, held[number], new))
                    held[number] += len(new)
                    places.append((number, turn))
            if not chunks:
                break
            rows = backend.decode(chunks).copy()
            self.assert_close(rows, np.stack([alone[number][1][turn] for number, turn in places]))

    def test_a_copy_goes_its_own_way(self, backend: Backend) -> None:
        """It continues like a sequence that computed the same tokens, and outlives its source."""
        ids = tokens(backend, 40)
        length = 20 if backend.info.can_cut else 30
        expected = self.fresh(backend, [*ids[:length], *ids[35:40]])
        source_expected = self.fresh(backend, [*ids[:30], ids[31]])
        backend.decode([Chunk(0, 0, ids[:30], "none")])
        backend.copy(0, 1, length)
        self.assert_close(backend.decode([Chunk(1, length, ids[35:40])]), expected)
        self.assert_close(backend.decode([Chunk(0, 30, ids[31:32])]), source_expected)
        backend.free(1)
        if backend.info.can_cut:
            backend.copy(0, 2, length)
        else:
            backend.free(0)
            backend.decode([Chunk(0, 0, ids[:length], "none")])
            backend.copy(0, 2, length)
        backend.free(0)
        self.assert_close(backend.decode([Chunk(2, length, ids[35:40])]), expected)

    def test_a_cut_sequence_goes_on_from_there(self, backend: Backend) -> None:
        """As if what was cut off had never been."""
        if not backend.info.can_cut:
            pytest.skip("a recurrent state cannot be cut")
        ids = tokens(backend, 40)
        expected = self.fresh(backend, [*ids[:12], *ids[30:34]])
        backend.decode([Chunk(0, 0, ids[:30], "none")])
        backend.cut(0, 12)
        self.assert_close(backend.decode([Chunk(0, 12, ids[30:34])]), expected)
        backend.cut(0, 16)
        backend.cut(0, 0)
        self.assert_close(backend.decode([Chunk(0, 0, [*ids[:12], *ids[30:34]])]), expected)

    def test_impossible_moves(self, backend: Backend) -> None:
        """ValueError, and nothing has changed."""
        ids = tokens(backend, 10)
        expected = self.fresh(backend, ids)
        backend.decode([Chunk(0, 0, ids[:9], "none"), Chunk(1, 0, ids[:1], "none")])
        most = backend.info.max_sequences
        for source, target, length in ((0, 1, 9), (0, 2, 10), (3, 2, 1), (0, 2, 0), (0, most, 9), (-1, 2, 1)):
            with pytest.raises(ValueError):
                backend.copy(source, target, length)
        if not backend.info.can_cut:
            with pytest.raises(ValueError):
                backend.copy(0, 2, 5)
            with pytest.raises(ValueError):
                backend.cut(0, 5)
        self.assert_close(backend.decode([Chunk(0, 9, ids[9:])]), expected)

    def test_a_freed_sequence_is_empty(self, backend: Backend) -> None:
        """It can begin anew, and freeing an empty one does nothing."""
        ids = tokens(backend, 20)
        expected = self.fresh(backend, ids[:5])
        backend.decode([Chunk(0, 0, ids, "none")])
        backend.free(0)
        backend.free(0)
        self.assert_close(backend.decode([Chunk(0, 0, ids[:5])]), expected)

    def test_wrong_chunks_are_refused(self, backend: Backend) -> None:
        """ValueError, whatever else is in the call, and nothing has changed."""
        info = backend.info
        ids = tokens(backend, 10)
        expected = self.fresh(backend, ids)
        backend.decode([Chunk(0, 0, ids[:9], "none")])
        good = Chunk(1, 0, ids[:3])
        wrong = [
            [Chunk(0, 8, ids[9:])],
            [Chunk(0, 10, ids[9:])],
            [Chunk(2, 1, ids[9:])],
            [good, good],
            [Chunk(2, 0, [])],
            [Chunk(2, 0, [-1])],
            [Chunk(2, 0, [info.vocabulary_size])],
            [Chunk(-1, 0, ids)],
            [Chunk(info.max_sequences, 0, ids)],
            [Chunk(2, 0, [ids[0]] * (info.batch_tokens + 1))],
        ]
        for chunks in wrong:
            with pytest.raises(ValueError):
                backend.decode([good, *chunks] if chunks[0] is not good else chunks)
        self.assert_close(backend.decode([Chunk(0, 9, ids[9:]), good])[:1], expected)

    def test_a_full_cache(self, backend: Backend) -> None:
        """CacheFull changes nothing; when something is freed, the same call succeeds."""
        info = backend.info
        if info.cache_tokens >= info.context_length * info.max_sequences:
            pytest.skip("every sequence can hold a whole context at once: this cache cannot be full")
        ids = tokens(backend, info.context_length)
        expected = self.fresh(backend, ids[:20])
        backend.decode([Chunk(0, 0, ids[:18], "none")])
        room, last, size = info.cache_tokens - 18, 0, min(info.context_length, info.batch_tokens)
        for sequence in range(1, info.max_sequences):
            part = ids[: min(size, room)]
            if part:
                backend.decode([Chunk(sequence, 0, part, "none")])
                room, last = room - len(part), sequence
        more = [Chunk(0, 18, ids[18:20]), *([Chunk(last + 1, 0, ids[:3])] if last + 1 < info.max_sequences else [])]
        for _ in range(2):
            with pytest.raises(CacheFull):
                backend.decode(more)
        backend.free(last)
        self.assert_close(backend.decode(more)[:1], expected)

    def test_an_interrupted_decode_leaves_no_trace(self, backend: Backend) -> None:
        """It raises DecodeError, unless it was over before; then the sequence goes on where it was.

        One whose state cannot be cut may be empty instead: whoever drives it frees it and begins anew.
        """
        info = backend.info
        ids = tokens(backend, 10)
        expected = self.fresh(backend, ids)
        many = (ids * info.batch_tokens)[: min(info.batch_tokens, info.context_length - 9)]
        stopped = 0
        # The four pauses once, and again where a busy machine let none of the interruptions come in time.
        for attempt in range(200):
            if attempt >= len(_PAUSES) and (stopped or not self.interrupts):
                break
            pause = _PAUSES[attempt % len(_PAUSES)]
            backend.decode([Chunk(0, 0, ids[:9], "none")])
            timer = threading.Timer(pause, backend.interrupt)
            timer.start()
            try:
                backend.decode([Chunk(0, 9, many, "last")])
                ended = True
            except DecodeError:
                ended = False
                stopped += 1
            timer.join()
            if not ended and info.can_cut:
                self.assert_close(backend.decode([Chunk(0, 9, ids[9:])]), expected)
            elif not ended:
                backend.free(0)
                self.assert_close(backend.decode([Chunk(0, 0, ids)]), expected)
            backend.free(0)
        assert stopped or not self.interrupts, "no decode was interrupted"

    def test_an_interruption_does_not_wait_for_the_next_decode(self, backend: Backend) -> None:
        """One that comes while nothing runs is forgotten."""
        ids = tokens(backend, 10)
        expected = self.fresh(backend, ids)
        backend.interrupt()
        time.sleep(0.01)
        self.assert_close(backend.decode([Chunk(0, 0, ids)]), expected)

    def fresh(self, backend: Backend, ids: Sequence[int], rows: str = "last") -> NDArray[np.float32]:
        """The rows of tokens computed in a sequence of their own, which is empty before and after."""
        last = backend.info.max_sequences - 1
        chunk = Chunk(last, 0, ids, "all" if rows == "all" else "last")
        found = backend.decode([chunk]).copy()
        backend.free(last)
        return found

    def greedy(
        self, backend: Backend, prompt: Sequence[int], count: int
    ) -> tuple[list[int], list[NDArray[np.float32]]]:
        """Tokens and the rows that they were chosen from."""
        last = backend.info.max_sequences - 1
        chosen: list[int] = []
        rows: list[NDArray[np.float32]] = []
        new, start = list(prompt), 0
        for _ in range(count):
            row = backend.decode([Chunk(last, start, new)])[0].copy()
            start += len(new)
            rows.append(row)
            chosen.append(int(row.argmax()))
            new = chosen[-1:]
        backend.free(last)
        return chosen, rows

    def assert_close(self, found: Logits, expected: Logits) -> None:
        """Equal shapes, and logits that differ by no more than ``tolerance`` standard deviations of their row."""
        assert found.shape == expected.shape, (found.shape, expected.shape)
        off = np.abs(found - expected).max(axis=1) / expected.std(axis=1)
        assert (off <= self.tolerance).all(), f"logits differ by {off.max():.4f} standard deviations"


_PAUSES = (0.0, 0.001, 0.003, 0.01)
"""Seconds from the beginning of a decode to its interruption."""


def tokens(backend: Backend, count: int) -> list[int]:
    """That many ordinary token ids, in the order of a text."""
    ids = backend.tokenize(SAMPLE)
    return (ids * (count // len(ids) + 1))[:count]
