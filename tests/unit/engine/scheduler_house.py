"""A scheduler that works for a backend, watched at every step."""

from pathlib import Path

from local_llms.backends.base import Adapter
from local_llms.engine.request import Sequence
from local_llms.engine.scheduler import Scheduler
from local_llms.engine.step import Copy, Step
from local_llms.errors import CacheFull, DecodeError
from local_llms.testing.scripted import ScriptedBackend

PREFIX = [number % 200 for number in range(60)]
ADAPTERS = [None, Adapter(Path("one")), Adapter(Path("two")), Adapter(Path("two"), 0.5)]


class House:
    """A scheduler and a backend; a request ends after a given number of answer tokens."""

    def __init__(self, *, max_parallel: int = 8, kind: type[ScriptedBackend] = ScriptedBackend, **backend: object):
        options = {"context_length": 10_000, "cache_tokens": 1000, "batch_tokens": 64, **backend}
        self.backend = kind(**options)
        self.backend._adapters = {adapter.path: number for number, adapter in enumerate(ADAPTERS[1:], start=1)}
        self.scheduler = Scheduler(self.backend.info, max_parallel=max_parallel)
        self.wanted: dict[Sequence, int] = {}
        self.done: list[Sequence] = []
        self.refused: list[Sequence] = []
        self.steps = 0

    def add(
        self, prompt: list[int], answer: int = 1, adapter: Adapter | None = None, *, watched: bool = True
    ) -> Sequence:
        sequence = Sequence(prompt_length=len(prompt), tokens=list(prompt), adapter=adapter, watched=watched)
        self.wanted[sequence] = answer
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> Step:
        """One step, with every promise checked."""
        scheduler = self.scheduler
        decoding = [sequence for sequence in scheduler.running if sequence.decoding]
        before = set(scheduler.running)
        step = scheduler.plan()
        self.steps += 1
        assert len(scheduler.running) <= scheduler.max_parallel
        assert scheduler.running, "nothing runs though there is work"
        assert scheduler.running == sorted(scheduler.running, key=lambda sequence: sequence.order)
        assert [sequence.order for sequence in scheduler.waiting] == sorted(one.order for one in scheduler.waiting)
        # Prompts go first where nobody watches.
        first_read = not any(one.watched for one in decoding) and not any(one.decoding for one in step.sequences)
        suspects = [sequence for sequence in scheduler.running if sequence.computed < sequence.alone_until]
        if suspects or not step.chunks:
            # A suspect that was the youngest may have been sent back, and then nothing is computed in this step.
            assert step.sequences == suspects[:1] or (not step.chunks and step.moves)
        else:
            assert first_read or scheduler.running[0] in step.sequences, "the oldest does not compute"
        newest = max((one.order for one in scheduler.running if one not in before), default=0)
        overtaken = [one for one in scheduler.waiting if one.order < newest and one.waits_for is None]
        assert not [one for one in overtaken if not one.preempted], "who waits for nobody was overtaken"
        for sequence in decoding:
            stalled = sequence.number is not None and sequence not in step.sequences
            assert not stalled or suspects or first_read or not step.chunks, "a decoding sequence was stalled"
        reading = sum(len(c.tokens) for c, s in zip(step.chunks, step.sequences, strict=True) if not s.decoding)
        if any(sequence.decoding for sequence in step.sequences):
            assert reading <= scheduler.prompt_chunk
        self.move(step.moves)
        if all(self.compute(part) for part in step.by_adapter()):
            self.check()
        return step

    def compute(self, step: Step) -> bool:
        """One decode, and what follows from it."""
        scheduler, backend = self.scheduler, self.backend
        (adapter,) = {sequence.adapter for sequence in step.sequences}
        try:
            backend.decode(step.chunks, adapter)
        except CacheFull:
            refused = scheduler.cache_full(step)
            if refused is not None:
                self.refuse(refused)
            return False
        except DecodeError:
            if len(step.chunks) == 1:
                self.refuse(step.sequences[0])
            else:
                self.move(scheduler.retry_alone(step))
            self.check()
            return False
        for chunk, sequence in zip(step.chunks, step.sequences, strict=True):
            scheduler.computed(sequence, chunk)
            assert backend.sequences[chunk.sequence] == sequence.tokens[: sequence.computed], (
                "wrong tokens in the cache"
            )
            if chunk.logits == "last":
                assert sequence.remaining == 0
                sequence.tokens.append(sequence.order)
        for sequence in step.sequences:
            if len(sequence.tokens) - sequence.prompt_length >= self.wanted[sequence]:
                self.end(sequence)
        return True

    def refuse(self, sequence: Sequence) -> None:
        self.refused.append(sequence)
        del self.wanted[sequence]
        self.move(self.scheduler.forget(sequence))

    def end(self, sequence: Sequence) -> None:
        del self.wanted[sequence]
        self.done.append(sequence)
        self.move(self.scheduler.finish(sequence))

    def move(self, moves: list) -> None:
        for move in moves:
            if isinstance(move, Copy):
                self.backend.copy(move.source, move.target, move.length)
            else:
                self.backend.free(move.number)

    def check(self) -> None:
        scheduler, held = self.scheduler, self.backend.sequences
        assert scheduler.cells == self.backend.cells_used
        running = {sequence.number for sequence in scheduler.running if sequence.computed}
        assert set(held) == running | set(scheduler._kept)
        assert len(scheduler._unused) + len(scheduler._kept) + len(scheduler.running) == self.backend.info.max_sequences

    def run(self, limit: int = 5000) -> int:
        """Steps until everything is done; fails where that takes too long."""
        before = self.steps
        while self.wanted:
            self.step()
            assert self.steps - before < limit, "no end in sight"
        return self.steps - before

    @property
    def computed(self) -> int:
        return sum(len(chunk.tokens) for decode in self.backend.decodes for chunk in decode)


class Liar(ScriptedBackend):
    """Says that it holds more than it does."""

    real = 50

    def decode(self, chunks, adapter=None):
        if self.cells_used + sum(len(chunk.tokens) for chunk in chunks) > self.real:
            raise CacheFull("there is less room than you think")
        return super().decode(chunks, adapter)
