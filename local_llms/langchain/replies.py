"""From this package's answers to LangChain's: messages, generations, chunks, and what is told about them.

A finished answer tells its model's name, ``finish_reason`` ("stop" or "length"), ``stop_match`` (the stop string that
ended it, if one did), usage, and ``timings`` (seconds: queued, first_token, total; and tokens_per_second); and where
``context_overflow="drop_oldest"`` left messages out, "dropped_messages", each with "role" and "content"; and where it
was cut and is kept even so, "cut". Of a stream, only the last chunk does, so that nothing is counted twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCall, ToolCallChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk

from local_llms.callbacks import TokenCallback
from local_llms.models import CallStart, Piece, ReplyReader, TextPiece
from local_llms.types import Completion, TokenEvent, TokenLogprob

PROVIDER = "local_llms"

_FIRST_CALL = 2
"""The index of a stream's first call. LangChain merges what has the same one, and with ``output_version="v1"`` it gives
0 and 1 to a thought and a text that stand in front."""


class Listener(TokenCallback):
    """Keeps each token's log-probability, as OpenAI writes it."""

    def __init__(self) -> None:
        self.content: list[dict[str, Any]] = []

    def on_token(self, event: TokenEvent) -> None:
        """Keep it."""
        self.content.append(_logprob(event))


def message(
    completion: Completion,
    model: str,
    listener: Listener | None,
    reader: ReplyReader | None = None,
    *,
    cut: bool = False,
) -> ChatGeneration:
    """A whole answer of a chat model. ``reader`` tells calls from text; ``cut``: it ends before it is complete."""
    pieces = [TextPiece(completion.text)] if reader is None else [*reader.push(completion.text), *reader.finish()]
    text, calls = _parts(pieces)
    whole, cut_off = _told_apart(calls)
    metadata = {"model_provider": PROVIDER, **_facts(completion, model), **_cut(cut)}
    if listener is not None:
        metadata["logprobs"] = {"content": listener.content}
    return ChatGeneration(
        message=AIMessage(
            content=text,
            tool_calls=whole,
            invalid_tool_calls=cut_off,
            additional_kwargs=_thought(completion.reasoning),
            response_metadata=metadata,
            usage_metadata=_usage(completion),
        ),
        generation_info={"finish_reason": completion.finish_reason},
    )


def message_chunk(
    event: TokenEvent, *, logprobs: bool, reader: ReplyReader | None = None
) -> ChatGenerationChunk | None:
    """What one token adds to a chat model's answer; None where it adds nothing yet."""
    metadata: dict[str, Any] = {"model_provider": PROVIDER}
    pieces = [TextPiece(event.text)] if reader is None else reader.push(event.text)
    text, calls = _parts(pieces)
    if logprobs:
        metadata["logprobs"] = {"content": [_logprob(event)]}
    elif not text and not calls and not event.reasoning:
        return None
    return ChatGenerationChunk(
        message=AIMessageChunk(
            content=text,
            tool_call_chunks=calls,
            additional_kwargs=_thought(event.reasoning),
            response_metadata=metadata,
        )
    )


def _thought(reasoning: str) -> dict[str, str]:
    """Where LangChain looks for a thought to make a reasoning block of it, in front of all others."""
    return {"reasoning_content": reasoning} if reasoning else {}


def _parts(pieces: Sequence[Piece]) -> tuple[str, list[ToolCallChunk]]:
    """The text of pieces, and their calls as LangChain streams them: one chunk for each call that they touch."""
    text: list[str] = []
    calls: dict[int, ToolCallChunk] = {}
    for piece in pieces:
        if isinstance(piece, TextPiece):
            text.append(piece.text)
        elif isinstance(piece, CallStart):
            index = _FIRST_CALL + piece.index
            calls[index] = tool_call_chunk(name=piece.name, args="", id=piece.id, index=index)
        else:
            index = _FIRST_CALL + piece.index
            chunk = calls.setdefault(index, tool_call_chunk(name=None, args="", id=None, index=index))
            chunk["args"] = (chunk["args"] or "") + piece.text
    return "".join(text), list(calls.values())


def _told_apart(chunks: Sequence[ToolCallChunk]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Calls that are whole, and what there is of one that was cut."""
    whole: list[ToolCall] = []
    cut_off: list[InvalidToolCall] = []
    for chunk in chunks:
        name, text, number = chunk["name"], chunk["args"] or "", chunk["id"]
        try:
            whole.append(tool_call(name=name or "", args=json.loads(text), id=number))
        except ValueError:
            cut_off.append(invalid_tool_call(name=name, args=text, id=number, error="The answer was cut in this call."))
    return whole, cut_off


def _cut(cut: bool) -> dict[str, bool]:
    return {"cut": True} if cut else {}


def last_message_chunk(
    completion: Completion, model: str, *, usage: bool, reader: ReplyReader | None = None, cut: bool = False
) -> ChatGenerationChunk:
    """The end of a chat model's answer, with what the reader held back of it."""
    text, calls = _parts([] if reader is None else reader.finish())
    return ChatGenerationChunk(
        message=AIMessageChunk(
            content=text,
            tool_call_chunks=calls,
            response_metadata={"model_provider": PROVIDER, **_facts(completion, model), **_cut(cut)},
            usage_metadata=_usage(completion) if usage else None,
            chunk_position="last",
        )
    )


def generation(completion: Completion, model: str) -> Generation:
    """A whole answer to a string."""
    return Generation(text=completion.text, generation_info=_info(completion, model))


def text_chunk(event: TokenEvent) -> GenerationChunk:
    """What one token adds to the answer to a string."""
    return GenerationChunk(text=event.text)


def last_text_chunk(completion: Completion, model: str) -> GenerationChunk:
    """The end of the answer to a string, without text."""
    return GenerationChunk(text="", generation_info=_info(completion, model))


def token_usage(completions: list[Completion]) -> dict[str, int]:
    """The tokens of several answers together, under the names that LangChain's string models use."""
    prompt = sum(completion.usage.prompt_tokens for completion in completions)
    answer = sum(completion.usage.completion_tokens for completion in completions)
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _facts(completion: Completion, model: str) -> dict[str, Any]:
    timings = completion.timings
    facts: dict[str, Any] = {
        "model_name": model,
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
        facts["dropped_messages"] = [
            {"role": message.role, "content": message.content} for message in completion.dropped_messages
        ]
    return facts


def _info(completion: Completion, model: str) -> dict[str, Any]:
    info = {"model_provider": PROVIDER, **_facts(completion, model), "usage": dict(_usage(completion))}
    if completion.reasoning:
        info["reasoning"] = completion.reasoning
    if completion.token_logprobs:
        info["logprobs"] = {
            "token_ids": list(completion.token_ids),
            "token_logprobs": list(completion.token_logprobs),
        }
        if completion.top_logprobs:
            info["logprobs"]["top_logprobs"] = [[_token(one) for one in likely] for likely in completion.top_logprobs]
    return info


def _usage(completion: Completion) -> UsageMetadata:
    usage = completion.usage
    metadata = UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_prompt_tokens),
    )
    if usage.reasoning_tokens:
        metadata["output_token_details"] = OutputTokenDetails(reasoning=usage.reasoning_tokens)
    return metadata


def _logprob(event: TokenEvent) -> dict[str, Any]:
    own = TokenLogprob(event.token_id, event.logprob or 0.0, event.data)
    return {**_token(own), "top_logprobs": [_token(other) for other in event.top_logprobs]}


def _token(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.text, "bytes": list(token.data), "logprob": token.logprob}
