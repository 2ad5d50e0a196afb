"""One request inside the engine's thread: its tokens, its text, and the stream it answers on."""

from __future__ import annotations

from collections.abc import Callable

from local_llms.backends.base import BackendInfo
from local_llms.engine.channel import Channel
from local_llms.engine.request import Request, Sequence, room_for
from local_llms.engine.sampler import Sampler
from local_llms.engine.text import TextAssembler
from local_llms.types import Completion, FinishReason, Timings, TokenEvent, Usage


class Job:
    """What the worker keeps of a request until its stream is closed."""

    def __init__(self, request: Request, info: BackendInfo, token_bytes: Callable[[int], bytes], now: float) -> None:
        """``now`` is the time of submission."""
        self.request = request
        self.channel = Channel()
        self.sequence = Sequence(len(request.prompt_ids), list(request.prompt_ids), request.adapter)
        self.sampler = Sampler(request.params, request.prompt_ids)
        self._text = TextAssembler(request.params.stop)
        self._token_bytes = token_bytes
        room = room_for(info) - len(request.prompt_ids)
        self._limit = min(request.params.max_tokens or room, room)
        self._pieces: list[str] = []
        self._logprobs: list[float] = []
        self._submitted = now
        self.started: float | None = None
        self._first_token: float | None = None

    @property
    def generated(self) -> int:
        """Tokens sampled so far."""
        return len(self.sequence.tokens) - self.sequence.prompt_length

    def accept(self, token: int, logprob: float | None, now: float) -> Completion | None:
        """Take the sampled token and send its event; returns the answer where this was the last one."""
        if self._first_token is None:
            self._first_token = now
        index = self.generated
        self.sequence.tokens.append(token)
        reason: FinishReason | None = None
        if token in self.request.end_ids:
            reason, text = "stop", self._text.finish()
        else:
            text = self._text.push(self._token_bytes(token))
            if self._text.stop_match is not None:
                reason = "stop"
            elif self.generated >= self._limit:
                reason = "length"
                text += self._text.finish()
        if text:
            self._pieces.append(text)
        if logprob is not None:
            self._logprobs.append(logprob)
        self.channel.push(TokenEvent(index, token, text, logprob))
        return None if reason is None else self._completion(reason, now)

    def _completion(self, reason: FinishReason, now: float) -> Completion:
        sequence = self.sequence
        started = self.started if self.started is not None else now
        first = self._first_token if self._first_token is not None else now
        return Completion(
            text="".join(self._pieces),
            token_ids=tuple(sequence.tokens[sequence.prompt_length :]),
            finish_reason=reason,
            usage=Usage(sequence.prompt_length, self.generated, sequence.cached),
            timings=Timings(
                queued=started - self._submitted,
                first_token=first - self._submitted,
                total=now - self._submitted,
                completion_tokens=self.generated,
            ),
            stop_match=self._text.stop_match,
            token_logprobs=tuple(self._logprobs),
        )
