"""What an engine is asked for, and what it remembers of it while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from local_llms.backends.base import Adapter, BackendInfo
from local_llms.constraints import Compiled
from local_llms.engine.thought import Thinking
from local_llms.types import Message, SamplingParams


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt, ready to be computed.

    - ``prompt_ids``: all tokens of the prompt, BOS included.
    - ``params``: how tokens are chosen; prompt and answer together never pass what the context and the cache hold.
    - ``end_ids``: tokens that end the answer.
    - ``logprobs``: whether each token's log-probability is wanted; costs a softmax a token. ``top_logprobs``: for how
      many of the most probable tokens at each place as well.
    - ``score``: no answer is wanted, but the log-probability of each token of the prompt.
    - ``trims_answer``: whether white space at the beginning of the answer is left out.
    - ``deadline``: a time of ``time.monotonic`` after which the request is given up.
    - ``constraint``: what the answer must look like, behind its thought; compiled for this engine's model.
    - ``adapter``: what the weights are changed by for this request; opened before its first step.
    - ``thinking``: how the answer may begin with a thought; None where it has none.
    - ``dropped_messages``: what was left out of the prompt so that it fits, for the answer to tell.
    """

    prompt_ids: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    end_ids: frozenset[int] = frozenset()
    logprobs: bool = False
    top_logprobs: int = 0
    score: bool = False
    trims_answer: bool = False
    deadline: float | None = None
    adapter: Adapter | None = None
    constraint: Compiled | None = None
    thinking: Thinking | None = None
    dropped_messages: tuple[Message, ...] = ()


@dataclass(eq=False, slots=True)
class Sequence:
    """A request in the scheduler's hands: the tokens it has, and how many of them are computed.

    ``number`` is the backend's sequence while the request runs, else None. ``order`` is its place in line: the
    scheduler serves small ones first and preempts large ones first. Once all of ``tokens`` is computed, a token is
    sampled and added. Until ``alone_until`` of them are, it is computed in steps of its own. ``scored``: the logits
    after each token are wanted, so none of them may be taken from the cache. ``watched``: somebody reads its tokens as
    they come. ``leaves``: after how many tokens it leaves a copy of its state, where states cannot be cut.
    """

    prompt_length: int
    tokens: list[int]
    adapter: Adapter | None = None
    scored: bool = False
    watched: bool = True
    order: int = 0
    number: int | None = None
    computed: int = 0
    cached: int = 0
    waits_for: tuple[Sequence, int] | None = None
    preempted: int = 0
    alone_until: int = 0
    leaves: set[int] = field(default_factory=set)

    @property
    def remaining(self) -> int:
        """Tokens that are not computed yet."""
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        """Whether it only needs one more token computed."""
        return self.computed >= self.prompt_length and self.remaining == 1


def room_for(info: BackendInfo) -> int:
    """The most tokens that prompt and answer of one request can have: the cache may be smaller than the context."""
    return min(info.context_length, info.cache_tokens)
