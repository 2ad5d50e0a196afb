"""How an answer may begin with a thought: what its template says of that, and what its prompt has of it already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from operator import attrgetter

from local_llms.catalog import ThinkingFormat
from local_llms.engine import Thinking
from local_llms.prompts import Prompt, Tokenizer, names_read, spell

_LEAST_OF_A_TAG = 2
"""Characters: a prompt that ends with that many of an opening tag has begun it."""


def format_in(source: str) -> ThinkingFormat | None:
    """How models think whose file carries a template of this text; None where it has no tag of a thought.

    The tags are those that nearly all models have, DeepSeek-R1, Qwen3, GLM-4.5 and SmolLM3 among them. A template that
    reads ``enable_thinking`` is of models that think unless told not to. One that reads ``thinking``, as those of
    DeepSeek-V3.1 and Granite do, is of models that do not unless told to; and of one without a switch nothing is known
    but what its prompts show.
    """
    if "</think>" not in source:
        return None
    return ThinkingFormat(by_default="enable_thinking" in names_read(source), provenance="the model file")


def thinking_in(
    form: ThinkingFormat | None,
    prompt: Prompt,
    tokenizer: Tokenizer,
    *,
    wanted: bool | None,
    most: int | None,
    stop: Sequence[str],
    exact: bool,
) -> Thinking | None:
    """What the engine has to know of the thought in front of an answer; None where there is none.

    ``wanted``: whether the caller wants one. ``most``: tokens that it may have. ``stop``: the template's own stop
    strings. ``exact``: the answer is held to a grammar; then it begins with a thought for certain, or with none.
    """
    if form is None:
        return None
    opening, begun = form.opening_tag, False
    # Only what the template's author wrote opens a thought, not what a user's text ends with.
    end = "".join(segment.text for segment in reversed(list(takewhile(attrgetter("trusted"), reversed(prompt)))))
    if end.rstrip().endswith(form.closing_tag):
        return None
    if end.rstrip().endswith(opening):
        opening, begun = "", True
    else:
        for length in range(len(opening) - 1, _LEAST_OF_A_TAG - 1, -1):
            if end.endswith(opening[:length]):
                opening, begun = opening[length:], True
                break
    opens = exact and not begun
    if opens and not (form.by_default if wanted is None else wanted):
        return None
    before, _, behind = form.closing.partition(form.closing_tag)
    special = tokenizer.info.special_tokens
    ids = {special[tag]: tag.encode() for tag in (form.opening_tag, form.closing_tag) if tag in special}
    tags = {token: tag for token, tag in ids.items() if not tokenizer.token_bytes(token)}
    return Thinking(
        opening=opening.encode(),
        begun=begun,
        closing=form.closing_tag.encode(),
        tags=tags,
        open_with=tuple(spell(form.opening, tokenizer)) if opens else (),
        before=_spelled(before, tokenizer, tags),
        close_with=_spelled(form.closing_tag, tokenizer, tags),
        behind=_spelled(behind, tokenizer, tags),
        most=0 if wanted is False else most,
        stop=tuple(stop),
    )


def _spelled(text: str, tokenizer: Tokenizer, tags: Mapping[int, bytes]) -> tuple[tuple[int, bytes], ...]:
    return tuple((token, tags.get(token) or tokenizer.token_bytes(token)) for token in spell(text, tokenizer))
