"""What the three kinds of ChatGLM's vocabularies have in common: special tokens around prompts, and no BOS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class Marked:
    """The facts of a ``Vocabulary`` that follow from its special tokens."""

    def __init__(
        self,
        special_tokens: Mapping[str, int],
        *,
        ends: Sequence[str],
        prefix: Sequence[str] = (),
        suffix: Sequence[str] = (),
        chat_template: str | None = None,
    ) -> None:
        """``special_tokens``: marker → id. ``ends``: markers that end an answer, the one that ends a text first.

        ``prefix``, ``suffix``: markers around every prompt. Of all these, only those count that the vocabulary has.
        """
        self.special_tokens: Mapping[str, int] = dict(special_tokens)
        self.bos_id: int | None = None
        self.adds_bos = False
        self.eos_text = next((text for text in ends if text in special_tokens), "")
        self.end_ids = frozenset(special_tokens[text] for text in ends if text in special_tokens)
        self.swallows_before: frozenset[int] = frozenset()
        self.swallows_after: frozenset[int] = frozenset()
        self.chat_template = chat_template
        self.prompt_prefix = _all_or_none(prefix, special_tokens)
        self.prompt_suffix = _all_or_none(suffix, special_tokens)


def _all_or_none(texts: Sequence[str], ids: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(ids[text] for text in texts) if all(text in ids for text in texts) else ()
