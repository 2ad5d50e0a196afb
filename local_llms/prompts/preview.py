"""What a conversation becomes: its text with structure and content apart, and its tokens with where each comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from local_llms.catalog import Template, with_thinking
from local_llms.prompts.encode import Tokenizer, encode, valid
from local_llms.prompts.render import MessageLike, Prompt, render

Origin = Literal["marker", "structure", "content", "both", "unknown"]


class Vocabulary(Tokenizer, Protocol):
    """The part of a backend that is needed here."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text."""
        ...


@dataclass(frozen=True, slots=True)
class PromptToken:
    """One token of a prompt.

    ``says``: UTF-8 of a marker's text, or what the token adds to a text, perhaps no whole character.
    ``origin``: "marker" for a special token, else whose text it spells: "structure", "content", or "both" where it
    spells some of either. "unknown" where the tokenizer changes texts so much that this cannot be told.
    """

    id: int
    says: bytes
    origin: Origin


@dataclass(frozen=True, slots=True)
class Preview:
    """A prompt as ``template`` writes it. ``tokens`` are those that a model would be sent; () without a model."""

    template: Template
    segments: Prompt
    tokens: tuple[PromptToken, ...]

    @property
    def text(self) -> str:
        """The prompt as one string. It does not show which marker is a token and which is a user's text."""
        return "".join(segment.text for segment in self.segments)


def preview(
    template: Template,
    messages: Sequence[MessageLike],
    vocabulary: Vocabulary | None = None,
    *,
    input: str | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    thinking: bool | None = None,
) -> Preview:
    """Write the messages down as ``template`` does, and, with a ``vocabulary``, as its tokens.

    The options are those of ``render_prompt``, and so are the errors.
    """
    template = with_thinking(template, thinking)
    rendered = render(
        template,
        messages,
        input=input,
        tools=tools,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
        thinking=thinking,
    )
    segments = tuple(replace(segment, text=valid(segment.text)) for segment in rendered)
    tokens = () if vocabulary is None else tuple(_trace(segments, vocabulary))
    return Preview(template, segments, tokens)


def _trace(prompt: Prompt, vocabulary: Vocabulary) -> Iterator[PromptToken]:
    """Follow the tokens of a prompt along its text."""
    markers: dict[int, list[str]] = {}
    for text, number in vocabulary.info.special_tokens.items():
        markers.setdefault(number, []).append(text)
    place = _Place(prompt, [text.encode() for texts in markers.values() for text in texts if text])
    for number in encode(prompt, vocabulary):
        if number in markers:
            place.pass_marker([text.encode() for text in markers[number]])
            yield PromptToken(number, markers[number][0].encode(), "marker")
        else:
            piece = vocabulary.token_bytes(number)
            yield PromptToken(number, piece, place.pass_text(piece))


class _Place:
    """How far the tokens have come in the bytes of a prompt.

    Tokenizers put a space in front of a text, drop white space beside markers, and some normalize a text: what does not
    fit is "unknown" until the next marker.
    """

    def __init__(self, prompt: Prompt, markers: Sequence[bytes]) -> None:
        self._bytes = b"".join(segment.text.encode() for segment in prompt)
        self._trusted = [segment.trusted for segment in prompt for _ in segment.text.encode()]
        self._markers = markers
        self._at = 0
        self._lost = False

    def pass_marker(self, texts: Sequence[bytes]) -> None:
        """Go past a marker; one that the model's own policy puts in front stands nowhere in the text."""
        if self._lost:
            found = [(start, text) for text in texts if (start := self._bytes.find(text, self._at)) >= 0]
        else:
            found = [(at, text) for at in self._starts() for text in texts if self._bytes.startswith(text, at)][:1]
        if found:
            start, text = min(found, key=lambda item: (item[0], -len(item[1])))
            self._at = start + len(text)
            self._lost = False

    def pass_text(self, piece: bytes) -> Origin:
        """Go past what a token says, and tell whose text it is."""
        while not self._lost:
            for start in self._starts():
                for form in (piece, piece.removeprefix(b" ")):
                    if piece and self._bytes.startswith(form, start):
                        self._at = start + len(form)
                        return self._origin(start, max(self._at, start + 1))
            # A BOS that stands twice in front is sent once.
            doubled = [text for text in self._markers if self._bytes.startswith(text, self._at)]
            if doubled and self._trusted[self._at]:
                self._at += max(map(len, doubled))
            else:
                self._lost = True
        return "unknown"

    def _starts(self) -> tuple[int, ...]:
        """Where the next token may begin: here, or behind white space that was dropped."""
        rest = self._bytes[self._at : self._at + 1000]
        return self._at, self._at + len(rest) - len(rest.lstrip())

    def _origin(self, start: int, end: int) -> Origin:
        trusted = set(self._trusted[start:end])
        return "both" if len(trusted) > 1 else "structure" if trusted == {True} else "content"
