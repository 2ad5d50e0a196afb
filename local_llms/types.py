"""The values that travel through the package. All frozen; nothing here imports anything of the package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call. ``parameters``: a JSON Schema of the object of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool. ``id`` tells it from others, so that a result can name it."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    ``content`` is text as the user or the model wrote it. It never becomes a special token, whatever it contains.
    ``tool_calls`` are the assistant's. The result of a call is a message of the role "tool", ``name`` is the tool's,
    and ``failed`` says that it is an error. ``reasoning`` is what the assistant thought before it said ``content``; a
    template decides whether it is shown to the model again.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    name: str = ""
    failed: bool = False
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen, and when to end. Every field is concrete: defaults are already applied.

    The order of operations is: logit bias, penalties, temperature, top-k, typical, top-p, min-p, draw.

    - ``temperature``: 0 is greedy (the most probable token); larger is more random.
    - ``top_k``: keep the k most probable tokens; 0 keeps all.
    - ``top_p``: keep the fewest tokens whose probabilities sum to at least p; 1 keeps all (Holtzman et al. 2019).
    - ``min_p``: keep tokens at least this fraction as probable as the most probable one; 0 keeps all
      (Nguyen et al. 2024).
    - ``typical_p``: keep the tokens nearest to the expected surprise until their mass is p; 1 keeps all
      (Meister et al. 2022).
    - ``repetition_penalty``: divides positive and multiplies negative logits of every token in prompt and answer; 1 is
      off (Keskar et al. 2019).
    - ``frequency_penalty``, ``presence_penalty``: subtracted per occurrence, and once, of a token in the answer;
      0 is off.
    - ``penalty_decay``: what every occurrence count is multiplied by at each token; 1 forgets nothing. RWKV's published
      sampler uses 0.996.
    - ``logit_bias``: token id → number added to its logit.
    - ``seed``: the same seed on the same logits gives the same tokens. None takes a fresh one.
    - ``max_tokens``: the most tokens to generate, those of a thought included; None means as many as the context holds.
    - ``max_thinking_tokens``: the most tokens of a thought, which is then closed so that the answer begins; None sets
      no bound of its own.
    - ``stop``: strings that end the answer; they are not part of it.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_decay: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    max_tokens: int | None = 512
    max_thinking_tokens: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token that was possible at one place of an answer, and the natural logarithm of its probability there.

    ``data`` are the bytes that it is by itself; of a special token, those of its marker.
    """

    token_id: int
    logprob: float
    data: bytes

    @property
    def text(self) -> str:
        """``data`` as text; bytes that are no whole character become U+FFFD."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One sampled token.

    ``text`` is what this token added to the answer, and ``reasoning`` what it added to the thought in front of it. Both
    are empty while a multi-byte character is incomplete or while the text may still become a stop string or a tag; a
    later event then carries it. ``logprob`` is the natural logarithm of the
    token's probability under the model, before temperature and cuts; None unless it was asked for. ``top_logprobs`` are
    the most probable tokens at this place, the most probable first; empty unless they were asked for. ``data`` are the
    bytes that the token is by itself, whatever has become text; empty unless log-probabilities were asked for.
    """

    index: int
    token_id: int
    text: str
    logprob: float | None = None
    top_logprobs: tuple[TokenLogprob, ...] = ()
    data: bytes = b""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a request cost.

    ``cached_prompt_tokens`` of the ``prompt_tokens`` were not computed again. ``reasoning_tokens`` of the
    ``completion_tokens`` are the thought and its tags.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations in seconds, measured from the submission of the request."""

    queued: float
    first_token: float
    total: float
    completion_tokens: int

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens after the first one per second after the first one; 0.0 where there is only one."""
        span = self.total - self.first_token
        return (self.completion_tokens - 1) / span if self.completion_tokens > 1 and span > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished answer.

    ``token_ids`` are all tokens sampled, thought and end token included; ``text`` is without thought, end token and
    stop string. ``reasoning`` is the thought without its tags, "" where there is none.
    ``finish_reason`` is "stop" (the model ended, or a stop string came: then ``stop_match`` is that string) or "length"
    (``max_tokens``, or the context is full). ``token_logprobs`` and ``top_logprobs``, one entry per token, are empty
    unless they were asked for. ``dropped_messages`` are those that were left out so that the prompt fits.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    stop_match: str | None = None
    token_logprobs: tuple[float, ...] = ()
    top_logprobs: tuple[tuple[TokenLogprob, ...], ...] = ()
    dropped_messages: tuple[Message, ...] = ()
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """How probable a text is under a model.

    ``token_logprobs`` has the natural logarithm of each token's probability after those before it, one per token; the
    first is None where nothing precedes it, not even a BOS token.
    """

    token_ids: tuple[int, ...]
    token_logprobs: tuple[float | None, ...]

    @property
    def logprob(self) -> float:
        """The logarithm of the whole text's probability, the first token's left out where it has none."""
        return sum(logprob for logprob in self.token_logprobs if logprob is not None)

    @property
    def perplexity(self) -> float:
        """Exponential of the mean negative log-probability of a token; infinite where no token has one."""
        known = sum(logprob is not None for logprob in self.token_logprobs)
        return math.exp(-self.logprob / known) if known else math.inf
