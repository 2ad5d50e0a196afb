"""One request's answer in llama-index's values: whole or in pieces, waited for or awaited."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LogProb, MessageRole

from local_llms.callbacks import TokenCallback
from local_llms.models import Stream
from local_llms.types import Completion, TokenEvent, TokenLogprob

ResponseT = TypeVar("ResponseT", ChatResponse, CompletionResponse)


def as_completion(text: str, **fields: Any) -> CompletionResponse:
    """The answer to ``complete``."""
    return CompletionResponse(text=text, **fields)


def as_chat(text: str, **fields: Any) -> ChatResponse:
    """The answer to ``chat``."""
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text), **fields)


class Listener(TokenCallback):
    """Keeps each token's log-probability, as llama-index writes it."""

    def __init__(self) -> None:
        self.logprobs: list[list[LogProb]] = []

    def on_token(self, event: TokenEvent) -> None:
        """Keep it."""
        self.logprobs.append(_logprobs(event))


@dataclass(frozen=True, slots=True)
class Reply(Generic[ResponseT]):
    """A request under way.

    ``build`` makes a response around a text; ``listener`` is there when log-probabilities are wanted.

    A finished answer's ``raw`` has "model", "usage" (prompt_tokens, completion_tokens, total_tokens,
    cached_prompt_tokens), "finish_reason" ("stop" or "length"), "stop_match" and "timings" (seconds: queued,
    first_token, total; and tokens_per_second); and where ``context_overflow="drop_oldest"`` left messages out,
    "dropped_messages", each with "role" and "content". ``additional_kwargs`` repeats the first three of the usage,
    where older counters look. Of a stream, only the last piece has them, so that nothing is counted twice.
    """

    stream: Stream
    model: str
    build: Callable[..., ResponseT]
    listener: Listener | None

    def whole(self) -> ResponseT:
        """Wait for the answer."""
        return self._finished(self.stream.result())

    async def awhole(self) -> ResponseT:
        """Await the answer; a cancelled task stops the computing."""
        return self._finished(await self.stream.aresult())

    def pieces(self) -> Generator[ResponseT, None, None]:
        """The answer as it grows. Closing or dropping the generator stops the computing."""
        text = ""
        with self.stream:
            for event in self.stream:
                text += event.text
                if self._tells(event):
                    yield self._piece(text, event)
            yield self._last(text)

    async def apieces(self) -> AsyncGenerator[ResponseT, None]:
        """Like ``pieces``, without blocking the event loop."""
        text = ""
        async with self.stream:
            async for event in self.stream:
                text += event.text
                if self._tells(event):
                    yield self._piece(text, event)
            yield self._last(text)

    def _tells(self, event: TokenEvent) -> bool:
        # Half a character, or what may become a stop string, is no news; its log-probability is.
        return bool(event.text) or self.listener is not None

    def _piece(self, text: str, event: TokenEvent) -> ResponseT:
        return self.build(text, delta=event.text, logprobs=[_logprobs(event)] if self.listener is not None else None)

    def _last(self, text: str) -> ResponseT:
        completion = self.stream.result()
        return self.build(completion.text, delta=completion.text[len(text) :], **self._facts(completion))

    def _finished(self, completion: Completion) -> ResponseT:
        logprobs = self.listener.logprobs if self.listener is not None else None
        return self.build(completion.text, logprobs=logprobs, **self._facts(completion))

    def _facts(self, completion: Completion) -> dict[str, Any]:
        usage = completion.usage
        counts = {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
        }
        timings = completion.timings
        raw: dict[str, Any] = {
            "model": self.model,
            "usage": {**counts, "cached_prompt_tokens": usage.cached_prompt_tokens},
            "finish_reason": completion.finish_reason,
            "stop_match": completion.stop_match,
            "timings": {
                "queued": timings.queued,
                "first_token": timings.first_token,
                "total": timings.total,
                "tokens_per_second": timings.tokens_per_second,
            },
        }
        if completion.dropped_messages:
            raw["dropped_messages"] = [asdict(message) for message in completion.dropped_messages]
        return {"raw": raw, "additional_kwargs": counts}


def _logprobs(event: TokenEvent) -> list[LogProb]:
    """The token itself, and then the others that were likely at its place."""
    own = TokenLogprob(event.token_id, event.logprob or 0.0, event.data)
    others = [other for other in event.top_logprobs if other.token_id != event.token_id]
    return [LogProb(token=one.text, logprob=one.logprob, bytes=list(one.data)) for one in (own, *others)]
