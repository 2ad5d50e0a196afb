"""One request's answer in llama-index's values: whole or in pieces, waited for or awaited."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from local_llms.callbacks import TokenCallback
from local_llms.llama_index.calling import arguments
from local_llms.models import CallStart, Piece, ReplyReader, Stream, TextPiece
from local_llms.types import Completion, TokenEvent, TokenLogprob

ResponseT = TypeVar("ResponseT", ChatResponse, CompletionResponse)


def as_completion(growing: Growing, **fields: Any) -> CompletionResponse:
    """The answer to ``complete``."""
    return CompletionResponse(text=growing.text, **fields)


def as_chat(growing: Growing, **fields: Any) -> ChatResponse:
    """The answer to ``chat``; what it thought is a block in front of its text, its calls are blocks behind it."""
    if not growing.calls and not growing.reasoning:
        return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=growing.text), **fields)
    count = growing.reasoning_tokens
    thought = [ThinkingBlock(content=growing.reasoning, num_tokens=count)] if growing.reasoning else []
    said = [TextBlock(text=growing.text)] if growing.text else []
    blocks = [*thought, *said, *growing.calls]
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks), **fields)


class Growing:
    """What an answer has thought, said and called so far."""

    def __init__(self, reader: ReplyReader | None) -> None:
        """``reader`` tells calls from text, where there may be any."""
        self.text = ""
        self.reasoning = ""
        self.reasoning_tokens: int | None = None
        """Known once the answer is complete."""
        self._reader = reader
        self._calls: list[tuple[CallStart, str]] = []

    def push(self, text: str) -> str:
        """Take a part of the answer; what it adds to the text."""
        return self._take([TextPiece(text)] if self._reader is None else self._reader.push(text))

    def finish(self) -> str:
        """Take what was held back, once nothing follows."""
        return self._take([] if self._reader is None else self._reader.finish())

    @property
    def calls(self) -> list[ToolCallBlock]:
        """The calls; the arguments of one that is not complete are the text that there is of them."""
        return [
            ToolCallBlock(tool_call_id=start.id, tool_name=start.name, tool_kwargs=arguments(text) or text or {})
            for start, text in self._calls
        ]

    def _take(self, pieces: Sequence[Piece]) -> str:
        said = ""
        for piece in pieces:
            if isinstance(piece, TextPiece):
                said += piece.text
            elif isinstance(piece, CallStart):
                self._calls.append((piece, ""))
            else:
                start, text = self._calls[piece.index]
                self._calls[piece.index] = (start, text + piece.text)
        self.text += said
        return said


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

    ``build`` makes a response of what there is; ``listener`` is there when log-probabilities are wanted, ``reader``
    when the answer may call tools.

    A finished answer's ``raw`` has "model", "usage" (prompt_tokens, completion_tokens, total_tokens,
    cached_prompt_tokens, and reasoning_tokens where it began with a thought), "finish_reason" ("stop" or "length"),
    "stop_match" and "timings" (seconds: queued, first_token, total; and tokens_per_second); "reasoning", the thought;
    and where ``context_overflow="drop_oldest"`` left messages out,
    "dropped_messages", each with "role" and "content". ``additional_kwargs`` repeats the first three of the usage,
    where older counters look. Of a stream, only the last piece has them, so that nothing is counted twice.
    """

    stream: Stream
    model: str
    build: Callable[..., ResponseT]
    listener: Listener | None
    reader: ReplyReader | None = None

    def whole(self) -> ResponseT:
        """Wait for the answer."""
        return self._finished(self.stream.result())

    async def awhole(self) -> ResponseT:
        """Await the answer; a cancelled task stops the computing."""
        return self._finished(await self.stream.aresult())

    def pieces(self) -> Generator[ResponseT, None, None]:
        """The answer as it grows. Closing or dropping the generator stops the computing."""
        growing = Growing(self.reader)
        with self.stream:
            for event in self.stream:
                piece = self._piece(growing, event)
                if piece is not None:
                    yield piece
            yield self._last(growing)

    async def apieces(self) -> AsyncGenerator[ResponseT, None]:
        """Like ``pieces``, without blocking the event loop."""
        growing = Growing(self.reader)
        async with self.stream:
            async for event in self.stream:
                piece = self._piece(growing, event)
                if piece is not None:
                    yield piece
            yield self._last(growing)

    def _piece(self, growing: Growing, event: TokenEvent) -> ResponseT | None:
        """None for half a character, or what may become a stop string: that is no news; its log-probability is."""
        delta = growing.push(event.text)
        growing.reasoning += event.reasoning
        if not event.text and not event.reasoning and self.listener is None:
            return None
        logprobs = [_logprobs(event)] if self.listener is not None else None
        # Where llama-index's agents look for it.
        news = {"thinking_delta": event.reasoning} if event.reasoning else {}
        return self.build(growing, delta=delta, logprobs=logprobs, additional_kwargs=news)

    def _last(self, growing: Growing) -> ResponseT:
        completion = self.stream.result()
        growing.reasoning_tokens = completion.usage.reasoning_tokens
        return self.build(growing, delta=growing.finish(), **self._facts(completion))

    def _finished(self, completion: Completion) -> ResponseT:
        growing = Growing(self.reader)
        growing.push(completion.text)
        growing.finish()
        growing.reasoning, growing.reasoning_tokens = completion.reasoning, completion.usage.reasoning_tokens
        logprobs = self.listener.logprobs if self.listener is not None else None
        return self.build(growing, logprobs=logprobs, **self._facts(completion))

    def _facts(self, completion: Completion) -> dict[str, Any]:
        usage = completion.usage
        counts = {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
        }
        thought = {"reasoning_tokens": usage.reasoning_tokens} if usage.reasoning_tokens else {}
        timings = completion.timings
        raw: dict[str, Any] = {
            "model": self.model,
            "usage": {**counts, "cached_prompt_tokens": usage.cached_prompt_tokens, **thought},
            "finish_reason": completion.finish_reason,
            "stop_match": completion.stop_match,
            "timings": {
                "queued": timings.queued,
                "first_token": timings.first_token,
                "total": timings.total,
                "tokens_per_second": timings.tokens_per_second,
            },
        }
        if completion.reasoning:
            raw["reasoning"] = completion.reasoning
        if completion.dropped_messages:
            raw["dropped_messages"] = [
                {"role": message.role, "content": message.content} for message in completion.dropped_messages
            ]
        return {"raw": raw, "additional_kwargs": counts}


def _logprobs(event: TokenEvent) -> list[LogProb]:
    """The token itself, and then the others that were likely at its place."""
    own = TokenLogprob(event.token_id, event.logprob or 0.0, event.data)
    others = [other for other in event.top_logprobs if other.token_id != event.token_id]
    return [LogProb(token=one.text, logprob=one.logprob, bytes=list(one.data)) for one in (own, *others)]
