"""One request inside the engine's thread: its tokens, its text, and the stream it answers on."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from local_llms.backends.base import BackendInfo, Chunk
from local_llms.engine.answer import Answer, Said
from local_llms.engine.channel import Channel
from local_llms.engine.logprobs import TokenNames, likely, log_probabilities
from local_llms.engine.request import Request, Sequence, room_for
from local_llms.engine.sampler import Allowed, Sampler
from local_llms.errors import AnswerCut, ConstraintError
from local_llms.types import Completion, FinishReason, Timings, TokenEvent, TokenLogprob, Usage

TokenLogprobs = tuple[TokenLogprob, tuple[TokenLogprob, ...]]


_numbers = itertools.count(1)


class Job:
    """What the worker keeps of a request until its stream is closed. ``number`` tells it from others in the log."""

    def __init__(
        self, request: Request, info: BackendInfo, token_bytes: Callable[[int], bytes], names: TokenNames, now: float
    ) -> None:
        """``now`` is the time of submission."""
        self.number = next(_numbers)
        self.request = request
        self.channel = Channel()
        self.sequence = Sequence(len(request.prompt_ids), list(request.prompt_ids), request.adapter, request.score)
        self.sampler = Sampler(request.params, request.prompt_ids)
        self.matcher = None if request.constraint is None else request.constraint.matcher(request.end_ids)
        self.stuck: ConstraintError | None = None
        self._vocabulary_size = info.vocabulary_size
        self._answer = Answer(
            request.thinking, request.params.stop, trims=request.trims_answer, exact=request.constraint is not None
        )
        self._token_bytes = token_bytes
        self._names = names
        room = room_for(info) - len(request.prompt_ids)
        self._limit = min(request.params.max_tokens or room, room)
        self._said: list[Said] = []
        self._logprobs: list[float] = []
        self._top_logprobs: list[tuple[TokenLogprob, ...]] = []
        self._submitted = now
        self.ended = False
        """Whether the worker has done with it. The reader may not know yet, and cancel it."""
        self.started: float | None = None
        self._first_token: float | None = None

    @property
    def generated(self) -> int:
        """Tokens sampled so far."""
        return len(self.sequence.tokens) - self.sequence.prompt_length

    def allowed(self) -> Allowed | None:
        """Which tokens may come next; None where all may. None may where the answer is ``stuck``."""
        thought = self._answer.thought
        if thought is not None and thought.forced:
            only = np.zeros(self._vocabulary_size, dtype=np.bool_)
            only[thought.forced[0]] = True
            return only
        if self.matcher is None or not self._answer.begun:
            return None
        try:
            return self.matcher.allowed()
        except ConstraintError as error:
            self.stuck = error
            return np.zeros(self._vocabulary_size, dtype=np.bool_)

    def score(self, rows: NDArray[np.float32], chunk: Chunk) -> None:
        """Take the logits after each token of a chunk of a text that is scored."""
        following = self.sequence.tokens[chunk.start + 1 : chunk.start + 1 + len(chunk.tokens)]
        # What was computed before the request was preempted comes again.
        del self._logprobs[chunk.start :]
        self._logprobs += log_probabilities(rows[: len(following)], following)

    def scored(self, now: float) -> Completion:
        """The outcome of a text that is scored: no answer; one log-probability for each token after the first."""
        return self._completion("length", now)

    def settle(self, token: int) -> int:
        """The token to take where this one was sampled: another one where it would end a thought in the wrong way."""
        thought = self._answer.thought
        if thought is None or thought.over or token < 0:
            return token
        return thought.settle(token, self._token_bytes(token), ends=token in self.request.end_ids)

    def look(self, row: NDArray[np.float32], token: int) -> TokenLogprobs | None:
        """The log-probability of a sampled token and what else was likely, where that is wanted."""
        if token < 0 or not self.request.logprobs:
            return None
        return likely(row, token, self.request.top_logprobs, self._names)

    def accept(self, token: int, seen: TokenLogprobs | None, now: float) -> Completion | AnswerCut | None:
        """Take the sampled token and send its event; returns the outcome where this was the last one.

        ``seen``: what ``look`` gave for it.

        Raises ConstraintError where the answer's grammar has become too complex to go on.
        """
        governed = self.matcher is not None and self._answer.begun
        if self.matcher is not None and governed:
            self.matcher.accept(token)
        if self._first_token is None:
            self._first_token = now
        index = self.generated
        self.sequence.tokens.append(token)
        reason, said = self._read(token, governed=governed)
        if said.reasoning or said.text:
            self._said.append(said)
        event = TokenEvent(index, token, said.text, reasoning=said.reasoning)
        if seen is not None:
            own, others = seen
            self._logprobs.append(own.logprob)
            self._top_logprobs += [others] if others else []
            event = TokenEvent(index, token, said.text, own.logprob, others, own.data, said.reasoning)
        self.channel.push(event)
        if reason is None:
            return None
        completion = self._completion(reason, now)
        cut = reason == "length" and self.matcher is not None and not self.matcher.complete
        return AnswerCut(completion) if cut else completion

    def _read(self, token: int, *, governed: bool) -> tuple[FinishReason | None, Said]:
        """What a token adds, and why it is the last one, if it is. ``governed``: by a grammar."""
        if token in self.request.end_ids:
            return "stop", self._answer.finish()
        heeds = self.matcher is None or (governed and self.matcher.heeds_stops)
        said = self._answer.push(token, self._token_bytes(token), heed_stops=heeds)
        if self._answer.stop_match is not None:
            return "stop", said
        # Where a grammar is fulfilled only an end token could follow, so it need not be computed.
        fulfilled = self.matcher is not None and governed and self.matcher.finished
        if not fulfilled and self.generated < self._limit:
            return None, said
        rest = self._answer.finish()
        return "stop" if fulfilled else "length", Said(said.reasoning + rest.reasoning, said.text + rest.text)

    def _completion(self, reason: FinishReason, now: float) -> Completion:
        sequence = self.sequence
        started = self.started if self.started is not None else now
        first = self._first_token if self._first_token is not None else now
        return Completion(
            text="".join(said.text for said in self._said),
            token_ids=tuple(sequence.tokens[sequence.prompt_length :]),
            finish_reason=reason,
            usage=Usage(
                sequence.prompt_length, self.generated, sequence.cached, reasoning_tokens=self._answer.reasoning_tokens
            ),
            timings=Timings(
                queued=started - self._submitted,
                first_token=first - self._submitted,
                total=now - self._submitted,
                completion_tokens=self.generated,
            ),
            stop_match=self._answer.stop_match,
            token_logprobs=tuple(self._logprobs),
            top_logprobs=tuple(self._top_logprobs),
            dropped_messages=self.request.dropped_messages,
            reasoning="".join(said.reasoning for said in self._said),
        )
