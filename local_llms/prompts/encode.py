"""A prompt becomes token ids. The only place that turns the text of a marker into a special token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import attrgetter
from threading import Lock
from typing import Protocol

from local_llms.backends.base import BackendInfo, TokenizesAfter
from local_llms.errors import EmptyPrompt, PromptError
from local_llms.prompts.length import Vocabulary, check_length
from local_llms.prompts.render import Prompt, Segment

_KEPT = 8


class Tokenizer(Vocabulary, Protocol):
    """The part of a backend that is needed here."""

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text, none of them special."""
        ...


def encode(prompt: Prompt, backend: Tokenizer, room: int | None = None) -> list[int]:
    """Token ids of a prompt.

    A special token comes from structure only: from a marker that stands whole in trusted text; of several that begin at
    one place the longest counts, and one made of letters counts as a word of its own. What lies between two markers,
    structure and content together, is tokenized as one string, so that the ids of ordinary prompts are those of the
    whole string, unless a segment ends a piece.

    Where the model wants its BOS in front, exactly one is there, whether or not the template wrote it. Where it does
    not, one that the template wrote stays.

    White space that the model's tokenizer drops beside a marker (``swallows_before``, ``swallows_after``) is dropped.
    ``room``: tokens that prompt and answer may have. A prompt whose bytes alone show that it has more is not tokenized:
    some tokenizers take the square of a text's length.

    The model's ``prompt_prefix`` is there once as well. Its ``prompt_suffix`` is added unless the template wrote any
    of it.

    Raises EmptyPrompt where there is no token at all, ContextOverflow for such a text, PromptError where the backend
    made a special token of plain text.
    """
    info = backend.info
    markers = _markers(info.special_tokens)
    ids: list[int] = []
    parts = list(chain.from_iterable(_parts(piece, markers) for piece in _pieces(prompt)))
    if info.swallows_before or info.swallows_after:
        parts = list(_swallowed(parts, info))
    if room is not None:
        check_length([part for part in parts if isinstance(part, str)], backend, room)
    after = backend.tokenize_after if isinstance(backend, TokenizesAfter) else backend.tokenize
    for place, part in enumerate(parts):
        if isinstance(part, int):
            # A template may write the BOS that a generic default wrote already; twice in front is never meant.
            if not (ids == [info.bos_id] == [part]):
                ids.append(part)
            continue
        plain = after(part) if place else backend.tokenize(part)
        if not markers.ids.isdisjoint(plain):
            raise PromptError(f"The backend {info.backend} made a special token of plain text; nothing was computed.")
        ids.extend(plain)
    if info.adds_bos and info.bos_id is not None and ids[:1] != [info.bos_id]:
        ids.insert(0, info.bos_id)
    if not ids:
        raise EmptyPrompt("The prompt has no token. Give some text.")
    ids[: _agreement(ids, info.prompt_prefix)] = info.prompt_prefix
    if not set(info.prompt_suffix) & set(ids):
        ids.extend(info.prompt_suffix)
    return ids


def spell(text: str, tokenizer: Tokenizer) -> list[int]:
    """Token ids of a template author's text that stands in the middle of another: no BOS, and markers are tokens.

    Some tokenizers put a space in front of whatever they are given; it is left out again where that is possible.
    """
    ids: list[int] = []
    for part in _parts((Segment(text, trusted=True),), _markers(tokenizer.info.special_tokens)):
        ids += [part] if isinstance(part, int) else _spell_plain(part, tokenizer)
    return ids


def _spell_plain(text: str, tokenizer: Tokenizer) -> list[int]:
    data = text.encode()
    for front in ("", "\n"):
        ids = tokenizer.tokenize(front + text)
        pieces = [tokenizer.token_bytes(token) for token in ids]
        for start in range(len(ids)):
            if b"".join(pieces[start:]) == data:
                return ids[start:]
    return tokenizer.tokenize(text)


def _agreement(ids: Sequence[int], prefix: Sequence[int]) -> int:
    """How many ids are the beginning of a prefix already."""
    return sum(1 for place in range(1, len(prefix) + 1) if list(ids[:place]) == list(prefix[:place]))


@dataclass(frozen=True, slots=True)
class _Markers:
    """The special tokens of a model, ready to be found: the lengths of markers by their first character."""

    of: Mapping[str, int]
    lengths: Mapping[str, tuple[int, ...]]
    ids: frozenset[int]

    @classmethod
    def build(cls, special_tokens: Mapping[str, int]) -> _Markers:
        lengths: dict[str, set[int]] = {}
        for marker in special_tokens:
            if marker:
                lengths.setdefault(marker[0], set()).add(len(marker))
        return cls(
            of=special_tokens,
            lengths={first: tuple(sorted(found, reverse=True)) for first, found in lengths.items()},
            ids=frozenset(special_tokens.values()),
        )

    def find(self, text: str) -> Iterator[tuple[int, str]]:
        """Place and text of every marker, from left to right, none overlapping another."""
        place = 0
        while place < len(text):
            for length in self.lengths.get(text[place], ()):
                marker = text[place : place + length]
                if marker in self.of and (not marker.isalpha() or _is_word(text, place, place + len(marker))):
                    yield place, marker
                    place += length
                    break
            else:
                place += 1


def _is_word(text: str, start: int, end: int) -> bool:
    """Whether letters stand there as a word of their own: ChatGLM's marker ``eop`` does not in "people"."""
    return not (text[start - 1 : start].isalpha() or text[end : end + 1].isalpha())


def _pieces(prompt: Prompt) -> Iterator[Prompt]:
    """What is tokenized apart, one after the other."""
    piece: list[Segment] = []
    for segment in prompt:
        piece.append(segment)
        if segment.ends_piece:
            yield tuple(piece)
            piece.clear()
    yield tuple(piece)


def _parts(prompt: Prompt, markers: _Markers) -> Iterator[str | int]:
    """Special ids, and the text between them, none empty."""
    run: list[str] = []
    for trusted, segments in groupby(prompt, key=attrgetter("trusted")):
        text = valid("".join(segment.text for segment in segments))
        done = 0
        for place, marker in markers.find(text) if trusted else ():
            run.append(text[done:place])
            if any(run):
                yield "".join(run)
            run.clear()
            yield markers.of[marker]
            done = place + len(marker)
        run.append(text[done:])
    if any(run):
        yield "".join(run)


def _swallowed(parts: Sequence[str | int], info: BackendInfo) -> Iterator[str | int]:
    """The parts without the white space that markers swallow."""
    for place, part in enumerate(parts):
        if isinstance(part, str):
            if place and parts[place - 1] in info.swallows_after:
                part = part.lstrip()
            if parts[place + 1 : place + 2] and parts[place + 1] in info.swallows_before:
                part = part.rstrip()
        if part != "":
            yield part


def valid(text: str) -> str:
    """The text with every half of a surrogate pair, which no encoding can express, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


_cache: list[_Markers] = []
_lock = Lock()


def _markers(special_tokens: Mapping[str, int]) -> _Markers:
    """The index of a model's markers, kept for the models used last; a model is known by its very mapping."""
    for known in _cache:
        if known.of is special_tokens:
            return known
    built = _Markers.build(special_tokens)
    with _lock:
        _cache[:] = [built, *_cache[: _KEPT - 1]]
    return built
