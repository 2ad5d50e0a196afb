"""Who computes what in the next step. Pure: no threads, no clock, no numpy, no backend.

A step is one ``decode`` of the backend for each adapter in use: one token for every sequence that decodes, and chunks
of the prompts that are still being read, so that a long prompt never stalls the others' tokens. Sequences join and
leave between any two steps.

What a finished request computed is kept until its room is needed: the next prompt that begins alike is copied from it.
Requests that wait and share a beginning with one that is being read wait for that part instead of computing it again.

A recurrent state cannot be cut, so of it only whole ones can be copied. There a request that is being read stops for a
moment where others will go on from, and leaves a copy of its state: at the end of its prompt, where the beginning ends
that it shares with something known, and wherever one that waits parts from it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Literal

from local_llms.backends.base import BackendInfo, Chunk
from local_llms.engine.prefix_tree import PrefixTree, common_prefix
from local_llms.engine.request import Sequence
from local_llms.engine.step import Copy, Free, Step

WORTH_WAITING = 16
"""Shared tokens, beyond those cached already, for which a request waits until another one has computed them."""

ROOM_TO_GROW = 16
"""Cache cells left free per running request when another one is admitted, so that it need not be preempted at once."""


SCORED_LOGITS = 1 << 24
"""The most logits that a step computes for texts that are scored: 64 MiB of them."""

CAREFUL_CHUNK = 128
"""Prompt tokens in a step in which others decode, while nobody knows how long that takes."""


class Scheduler:
    """The queue, the running requests, the kept prefixes, and the room they take."""

    def __init__(self, info: BackendInfo, *, max_parallel: int) -> None:
        """``max_parallel``: the most requests that decode together."""
        self._info = info
        # Whoever decodes finds room in every step, and one that reads its prompt does.
        running = info.max_sequences if info.max_running is None else info.max_running
        self.max_parallel = min(max_parallel, running, info.max_sequences, info.batch_tokens)
        self.prompt_chunk = min(CAREFUL_CHUNK, info.batch_tokens)
        """The most prompt tokens in a step in which others decode; the worker sets it once it knows the speed."""
        self._scored_rows = max(1, min(SCORED_LOGITS // info.vocabulary_size, info.batch_tokens))
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0
        self._tree = PrefixTree()
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._unused = list(range(info.max_sequences - 1, -1, -1))
        self._orders = 0
        self._capacity = info.cache_tokens

    @property
    def cells(self) -> int:
        """Cache cells in use."""
        return self._tree.cells

    @property
    def kept(self) -> int:
        """Number of kept prefixes."""
        return len(self._kept)

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self.running or self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Put a request at the end of the line. It must fit into the context."""
        self._orders += 1
        sequence.order = self._orders
        self.waiting.append(sequence)

    def plan(self) -> Step:
        """Decide the next step. The moves count as done; the chunks do once ``computed`` says so."""
        step = Step()
        for sequence in self.running:
            self._leave_state(sequence, step)
        if self.waiting:
            self._admit(step)
        suspect = next((sequence for sequence in self.running if sequence.computed < sequence.alone_until), None)
        if suspect is not None:
            most = self._scored_rows if suspect.scored else self._info.batch_tokens
            self._add_chunk(step, suspect, min(suspect.remaining, most))
            self._make_room(step, suspect)
        elif self.running:
            decoding = [sequence for sequence in self.running if sequence.decoding]
            if len(decoding) < len(self.running) and not any(sequence.watched for sequence in decoding):
                # Where all only wait for whole answers, those come soonest if prompts are read first, in full batches.
                self._fill(step, [])
                self._make_room(step, self.running[0])
            if not step.chunks:
                self._fill(step, decoding)
                self._make_room(step, self.running[0])
        return step

    def computed(self, sequence: Sequence, chunk: Chunk) -> None:
        """Record that a chunk was computed."""
        self._tree.append(chunk.sequence, chunk.tokens, sequence.adapter)
        sequence.computed += len(chunk.tokens)

    def finish(self, sequence: Sequence) -> list[Free]:
        """Take a request out, running or waiting, and keep what it computed; returns the moves to make."""
        if sequence.number is None:
            if sequence in self.waiting:
                self.waiting.remove(sequence)
            return []
        number = self._stop(sequence)
        if not self._tree.length(number):
            return [self._release(number)]
        around, inside = self._tree.alike(number)
        if not self._info.can_cut:
            # A state that cannot be cut is of use for its own beginning only.
            inside &= around
        elif around:
            for other in sorted(around.intersection(self._kept)):
                self._kept.move_to_end(other)
            return [self._release(number)]
        self._kept[number] = None
        return [self._release(other) for other in sorted(inside.intersection(self._kept))]

    def forget(self, sequence: Sequence) -> list[Free]:
        """Take a request out and keep nothing of it."""
        if sequence.number is None:
            return self.finish(sequence)
        return [self._release(self._stop(sequence))]

    def cache_full(self, step: Step) -> Sequence | None:
        """The backend had no room for one decode, though by our count it fits; returns the request not to be served.

        From now on, until nothing runs, the cache counts as too small for that step. So the next one evicts, preempts
        or reads less, and the failing step does not come again and again.
        """
        needed = sum(len(chunk.tokens) for chunk in step.chunks)
        alone = len(self.running) == 1 and not self._kept
        if alone and needed == 1:
            return self.running[0]
        self._capacity = self._tree.cells + (needed // 2 if alone else needed - 1)
        return None

    def retry_alone(self, step: Step) -> list[Free]:
        """A decode failed: until they are past that point, its requests get steps of their own, to find the culprit.

        A state that cannot be cut may be lost by a failure, and is computed again from its beginning.
        """
        moves: list[Free] = []
        for chunk, sequence in zip(step.chunks, step.sequences, strict=True):
            sequence.alone_until = chunk.start + len(chunk.tokens)
            if not self._info.can_cut:
                self._tree.drop(chunk.sequence)
                sequence.computed = 0
                moves.append(Free(chunk.sequence))
        return moves

    def _fill(self, step: Step, decoding: list[Sequence]) -> None:
        """A token for every sequence of ``decoding``, and prompts in the room that is left.

        At least half of that is for the oldest prompt. Younger ones that fit into the other half whole come next, so
        that a short question does not wait behind a long document.
        """
        room = self._info.batch_tokens
        for sequence in decoding:
            self._add_chunk(step, sequence, 1)
        room -= len(decoding)
        if decoding:
            room = min(room, self.prompt_chunk)
        reading = [sequence for sequence in self.running if not sequence.decoding]
        spare, short = room // 2, []
        for sequence in reading[1:]:
            if sequence.remaining <= spare and not sequence.scored:
                short.append(sequence)
                spare -= sequence.remaining
        shares = [*short, *reading[:1], *(sequence for sequence in reading[1:] if sequence not in short)]
        lengths: dict[Sequence, int] = {}
        rows = self._scored_rows
        for sequence in shares:
            lengths[sequence] = min(sequence.remaining, room, rows if sequence.scored else room)
            room -= lengths[sequence]
            rows -= lengths[sequence] if sequence.scored else 0
        for sequence in reading:
            if lengths[sequence]:
                self._add_chunk(step, sequence, lengths[sequence])

    def _admit(self, step: Step) -> None:
        blocked: list[Sequence] = []
        while self.waiting and len(self.running) < self.max_parallel:
            sequence = self.waiting.popleft()
            if not self._start(sequence, step):
                blocked.append(sequence)
                if sequence.waits_for is None:
                    break
        self.waiting.extendleft(reversed(blocked))

    def _start(self, sequence: Sequence, step: Step) -> bool:
        """Give a waiting request a sequence of the backend, with the longest cached beginning; False: not yet."""
        if self._still_waits(sequence):
            return False
        # The last token is always computed, since its logits are needed.
        limit = 0 if sequence.scored else len(sequence.tokens) - 1
        source, length = self._tree.match(sequence.tokens, limit, sequence.adapter, whole=not self._info.can_cut)
        least = self._least(sequence)
        if length < least:
            source, length = None, 0
        for other in self.running:
            if other.decoding or other.adapter != sequence.adapter:
                continue
            shared = min(common_prefix(other.tokens, sequence.tokens), limit)
            if shared < max(length + WORTH_WAITING, least):
                continue
            if self._info.can_cut or other.computed < shared:
                sequence.waits_for = (other, shared)
                if not self._info.can_cut:
                    other.leaves.add(shared)
                return False
        if not self._fits(sequence, length, source):
            return False
        if not self._unused and list(self._kept) == [source]:
            # The only sequence to be had is the one to copy from.
            source, length = None, 0
        number = self._take_number(step, source)
        if number is None:
            return False
        if source is not None:
            step.moves.append(Copy(source, number, length))
            self._tree.share(source, number, length)
        sequence.number, sequence.computed = number, length
        if not sequence.preempted:
            sequence.cached = length
        sequence.leaves = self._places(sequence, limit)
        self.running.append(sequence)
        self.running.sort(key=_order)
        return True

    def _places(self, sequence: Sequence, limit: int) -> set[int]:
        """After how many tokens a request that starts now leaves a copy of its state, as far as is known yet."""
        if self._info.can_cut or sequence.scored:
            return set()
        _, known = self._tree.match(sequence.tokens, limit, sequence.adapter)
        worth = sequence.computed + WORTH_WAITING
        return {place for place in (known, sequence.prompt_length) if place >= worth}

    def _leave_state(self, sequence: Sequence, step: Step) -> None:
        """Copy the state of a request that has come to one of its places, and keep the copy, unless one is kept."""
        if self._info.can_cut or sequence.computed not in sequence.leaves or sequence.number is None:
            return
        sequence.leaves.discard(sequence.computed)
        around, inside = self._tree.alike(sequence.number)
        equal = next((other for other in around & inside if other in self._kept), None)
        if equal is not None:
            self._kept.move_to_end(equal)
            return
        number = self._take_number(step, None)
        if number is not None:
            step.moves.append(Copy(sequence.number, number, sequence.computed))
            self._tree.share(sequence.number, number, sequence.computed)
            self._kept[number] = None

    def _least(self, sequence: Sequence) -> int:
        """The fewest tokens that are of use to a request: all that is read in both directions, or none of it."""
        mark, tokens = self._info.bidirectional_until, sequence.tokens
        if mark is None:
            return 0
        return tokens.index(mark) + 1 if mark in tokens else len(tokens)

    @staticmethod
    def _still_waits(sequence: Sequence) -> bool:
        if sequence.waits_for is None:
            return False
        other, shared = sequence.waits_for
        if other.number is not None and other.computed < shared:
            return True
        sequence.waits_for = None
        return False

    def _fits(self, sequence: Sequence, cached: int, source: int | None) -> bool:
        """Whether the prompts that run and this one can all be read without preempting anybody."""
        if not self.running:
            return True
        needed = self._tree.cells_of(self._numbers(source))
        needed += len(sequence.tokens) - cached
        needed += sum(other.remaining for other in self.running)
        return needed + ROOM_TO_GROW * (len(self.running) + 1) <= self._capacity

    def _numbers(self, source: int | None) -> Iterator[int]:
        for other in self.running:
            if other.number is not None:
                yield other.number
        if source is not None:
            yield source

    def _take_number(self, step: Step, source: int | None) -> int | None:
        if not self._unused:
            victim = next((number for number in self._kept if number != source), None)
            if victim is None:
                return None
            step.moves.append(self._evict(victim))
        return self._unused.pop()

    def _add_chunk(self, step: Step, sequence: Sequence, length: int) -> None:
        if sequence.number is None:
            return
        start = sequence.computed
        if not self._info.can_cut:
            length = min([length, *(place - start for place in sequence.leaves if place > start)])
        last = start + length == len(sequence.tokens)
        tokens = sequence.tokens[start : start + length]
        rows: Literal["none", "last", "all"] = "all" if sequence.scored else "last" if last else "none"
        step.chunks.append(Chunk(sequence.number, start, tokens, rows))
        step.sequences.append(sequence)

    def _make_room(self, step: Step, first: Sequence) -> None:
        """Evict kept prefixes, let prompts but that of ``first`` wait, preempt the youngest: until the chunks fit.

        A prompt that waits keeps what was read of it, as long as the others leave it that room. ``first``, the oldest
        request, always computes, so every one is the oldest one day and gets its answer.
        """
        while step.chunks:
            needed = sum(len(chunk.tokens) for chunk in step.chunks)
            free = self._capacity - self._tree.cells
            if needed <= free:
                return
            last = step.sequences[-1]
            if self._kept:
                step.moves.append(self._evict())
            elif last is not first and not last.decoding:
                del step.sequences[-1], step.chunks[-1]
            elif len(self.running) > 1:
                victim = self.running[-1]
                step.moves.append(self._preempt())
                if victim in step.sequences:
                    index = step.sequences.index(victim)
                    del step.sequences[index], step.chunks[index]
            else:
                step.sequences.clear()
                step.chunks.clear()
                # One token is tried in any case: what does not fit must fail, not wait for ever.
                self._add_chunk(step, first, max(free, 1))
                return

    def _stop(self, sequence: Sequence) -> int:
        """Take a running request out; returns the number it had."""
        self.running.remove(sequence)
        if not self.running:
            self._capacity = self._info.cache_tokens
        number, sequence.number = sequence.number, None
        return number if number is not None else -1

    def _evict(self, number: int | None = None) -> Free:
        """Give up a kept prefix: the least recently used one unless told which."""
        if number is None:
            number, _ = self._kept.popitem(last=False)
        else:
            del self._kept[number]
        return self._release(number)

    def _preempt(self) -> Free:
        """Send the youngest running request back into the line; its tokens stay, its room is freed."""
        victim = self.running.pop()
        number = victim.number if victim.number is not None else -1
        victim.number, victim.computed, victim.waits_for = None, 0, None
        victim.preempted += 1
        self.preemptions += 1
        self.waiting.insert(sum(other.order < victim.order for other in self.waiting), victim)
        return self._release(number)

    def _release(self, number: int) -> Free:
        self._kept.pop(number, None)
        self._tree.drop(number)
        self._unused.append(number)
        return Free(number)


def _order(sequence: Sequence) -> int:
    return sequence.order
