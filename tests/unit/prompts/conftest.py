"""Templates and tokenizers for the tests of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from local_llms.backends.base import BackendInfo
from local_llms.catalog.schema import Template
from local_llms.prompts import MessageLike, render

USER = ({"role": "user", "content": "question"},)


def template_of(source: str) -> Template:
    return Template(name="test", source=source, bos_token="<s>", eos_token="</s>")


Shown = Callable[..., list[tuple[str, bool]]]


@pytest.fixture
def shown() -> Shown:
    """The segments of a template, each as text and whether it is trusted."""

    def show(source: str, messages: Sequence[MessageLike] = USER, **options: object) -> list[tuple[str, bool]]:
        prompt = render(template_of(source), messages, **options)  # type: ignore[arg-type]
        return [(segment.text, segment.trusted) for segment in prompt]

    return show


class PairTokenizer:
    """Reads two characters at a time and puts a space in front of every text, so it shows where texts were cut.

    A special token's id is below 100.
    """

    def __init__(self, markers: dict[str, int], bos: int | None = None, adds_bos: bool = False) -> None:
        self.info = BackendInfo(
            backend="pairs",
            architecture="pairs",
            parameters=0,
            vocabulary_size=1 << 42,
            context_length=1 << 20,
            trained_context_length=1 << 20,
            cache_tokens=1 << 20,
            max_sequences=1,
            batch_tokens=64,
            bos_id=bos,
            end_ids=frozenset(),
            adds_bos=adds_bos,
            special_tokens=markers,
        )
        self.texts: list[str] = []

    def tokenize(self, text: str) -> list[int]:
        self.texts.append(text)
        spaced = " " + text
        return [
            (ord(spaced[place]) << 21) + ord(spaced[place + 1 : place + 2] or "\0") + 100
            for place in range(0, len(spaced), 2)
        ]

    def whole(self, text: str) -> list[int]:
        """Ids of a text whose markers all count: the longest ones are cut out first, then the shorter ones."""
        parts: list[str | int] = [text]
        for marker in sorted(self.info.special_tokens, key=len, reverse=True):
            cut: list[str | int] = []
            for part in parts:
                if isinstance(part, int):
                    cut.append(part)
                    continue
                for place, between in enumerate(part.split(marker)):
                    cut += ([self.info.special_tokens[marker]] if place else []) + ([between] if between else [])
            parts = cut
        ids: list[int] = []
        for part in parts:
            ids += [part] if isinstance(part, int) else self.tokenize(part)
        return ids


@pytest.fixture(scope="session")
def pair_tokenizer() -> type[PairTokenizer]:
    return PairTokenizer
