"""A backend without weights: what it answers is a function of the tokens it holds.

It watches over the protocol: ValueError where a chunk does not continue its sequence, a copy is not possible or an
adapter was not opened, CacheFull where the cells do not suffice, AssertionError where two threads compute at once or a
sequence is computed with two adapters; logits turn into NaN at the next call, and a failure loses states that cannot be
cut. So a test of an engine on it is a test of the engine's bookkeeping.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from local_llms.backends.base import Adapter, BackendInfo, Chunk, Logits
from local_llms.errors import AdapterError, CacheFull, DecodeError, EngineClosed, EngineForked

BOS, EOS, IM_START, IM_END = 256, 257, 258, 259
VOCABULARY = 260
SPECIALS = {"<s>": BOS, "</s>": EOS, "<|im_start|>": IM_START, "<|im_end|>": IM_END}

Script = Callable[[Sequence[int]], int]
"""The tokens of a sequence → the token that it makes most probable next."""


def echo_script(tokens: Sequence[int]) -> int:
    """A deterministic, aperiodic walk over small letters that depends on every token so far."""
    return 97 + zlib.crc32(bytes(str(list(tokens)), "ascii")) % 26


def say(text: str, *, end: int = EOS) -> Script:
    """A script that answers every prompt with ``text`` and then ends; the prompt ends where the answer begins."""
    answer: list[int] = [*text.encode(), end]

    def script(tokens: Sequence[int]) -> int:
        for done in range(min(len(answer) - 1, len(tokens)), -1, -1):
            if list(tokens[len(tokens) - done :]) == answer[:done]:
                return answer[done]
        return answer[0]

    return script


ADAPTER_MARK = b"scripted adapter:"

ADAPTER_TOKEN = -1
"""Where a sequence has an adapter, a script is given this and a number in front of the tokens: the adapter's own times
1000 and the scale."""


def write_adapter(path: Path, number: int = 1) -> Path:
    """Make a file that a scripted backend opens as an adapter. ``echo_script`` says something else with each number."""
    path.write_bytes(ADAPTER_MARK + str(number).encode())
    return path


class ScriptedBackend:
    """Implements ``Backend`` over a vocabulary of 256 bytes and four special tokens."""

    def __init__(
        self,
        script: Script = echo_script,
        *,
        context_length: int = 512,
        cache_tokens: int = 4096,
        max_sequences: int = 64,
        batch_tokens: int = 128,
        can_cut: bool = True,
        step_seconds: float = 0.0,
        fail_on: Callable[[Sequence[Chunk]], bool] | None = None,
        info: BackendInfo | None = None,
    ) -> None:
        """``script``: the next token, of all before it; ``say("…")`` is one.

        ``context_length``, ``cache_tokens`` and ``batch_tokens`` are tokens, which are bytes here. ``max_sequences``:
        how many there are at once. ``can_cut``: whether a sequence can be shortened, as recurrent models' cannot.
        ``step_seconds``: how long a decode takes. ``fail_on``: chunks for which a decode raises DecodeError. ``info``:
        facts in place of all these.
        """
        self._info = info or BackendInfo(
            backend="scripted",
            architecture="scripted",
            parameters=0,
            vocabulary_size=VOCABULARY,
            context_length=context_length,
            trained_context_length=context_length,
            cache_tokens=cache_tokens,
            max_sequences=max_sequences,
            batch_tokens=batch_tokens,
            bos_id=BOS,
            end_ids=frozenset({EOS, IM_END}),
            adds_bos=True,
            special_tokens=dict(SPECIALS),
            eos_text="</s>",
            embedding_size=8,
            can_cut=can_cut,
            name="scripted",
        )
        self._script = script
        self._step_seconds = step_seconds
        self._fail_on = fail_on
        # A cell is one computed token; a copy refers to the same cells.
        self._sequences: dict[int, list[tuple[int, int]]] = {}
        self._cells = 0
        self._adapters: dict[Path, int] = {}
        self._computed_with: dict[int, Adapter | None] = {}
        self._computing = threading.Lock()
        self._interrupt = threading.Event()
        self._closed = False
        self._pid = os.getpid()
        self._logits = np.zeros((0, self._info.vocabulary_size), dtype=np.float32)
        self.decodes: list[list[Chunk]] = []
        """Every decode so far."""
        self.opened: list[Path] = []
        """Every adapter that was opened, in order."""

    @property
    def info(self) -> BackendInfo:
        """Facts about the scripted model."""
        return self._info

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def tell(self, **facts: Any) -> None:
        """Change facts of ``info``; before the backend is used."""
        self._info = replace(self._info, **facts)

    @property
    def sequences(self) -> dict[int, list[int]]:
        """The tokens of every non-empty sequence."""
        return {number: [token for token, _ in held] for number, held in self._sequences.items() if held}

    @property
    def cells_used(self) -> int:
        """Distinct cells in use."""
        return len({cell for held in self._sequences.values() for _, cell in held})

    def tokenize(self, text: str) -> list[int]:
        """The UTF-8 bytes of the text, with U+FFFD for a lone surrogate."""
        self._check_open()
        return list(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode())

    def token_bytes(self, token_id: int) -> bytes:
        """One byte, or none for a special token."""
        self._check_open()
        if token_id in self._info.special_tokens.values():
            return b""
        if not 0 <= token_id < VOCABULARY:
            raise ValueError("no such token")
        return bytes([token_id]) if token_id < 256 else b""

    def open_adapter(self, path: Path) -> None:
        """A file that ``write_adapter`` made. Raises AdapterError for any other."""
        self._check_open()
        if path in self._adapters:
            return
        content = path.read_bytes() if path.is_file() else b""
        if not content.startswith(ADAPTER_MARK):
            raise AdapterError(f"{path} is no scripted adapter. Make one with write_adapter().")
        self._adapters[path] = int(content.removeprefix(ADAPTER_MARK))
        self.opened.append(path)

    def decode(self, chunks: Sequence[Chunk], adapter: Adapter | None = None) -> Logits:
        """Hold the tokens, and give one row per position asked for; the scripted token has the largest logit."""
        self._begin()
        if adapter is not None and adapter.path not in self._adapters:
            raise ValueError(f"the adapter {adapter.path} was not opened")
        if not self._computing.acquire(blocking=False):
            raise AssertionError("two threads compute at once")
        try:
            self._logits = self._decode(chunks, adapter)
            return self._logits
        finally:
            self._computing.release()

    def _decode(self, chunks: Sequence[Chunk], adapter: Adapter | None) -> Logits:
        self._check_chunks(chunks)
        for chunk in chunks:
            if chunk.start and self._computed_with.get(chunk.sequence) != adapter:
                raise AssertionError(f"sequence {chunk.sequence} is computed with two adapters")
        self._interrupt.clear()
        if self._step_seconds and self._interrupt.wait(self._step_seconds):
            self._fail("interrupted", chunks)
        if self._fail_on is not None and self._fail_on(chunks):
            self._fail("scripted failure", chunks)
        new = sum(len(chunk.tokens) for chunk in chunks)
        if self.cells_used + new > self._info.cache_tokens:
            raise CacheFull("the scripted cache is full")
        self.decodes.append(list(chunks))
        rows: list[NDArray[np.float32]] = []
        strength = 0 if adapter is None else round(1000 * self._adapters[adapter.path] * adapter.scale)
        mark = [ADAPTER_TOKEN, strength] if strength else []
        for chunk in chunks:
            self._computed_with[chunk.sequence] = adapter
            held = self._sequences.setdefault(chunk.sequence, [])
            for index, token in enumerate(chunk.tokens):
                self._cells += 1
                held.append((token, self._cells))
                last = index == len(chunk.tokens) - 1
                if chunk.logits == "all" or (chunk.logits == "last" and last):
                    rows.append(self._row([*mark, *(token for token, _ in held)]))
        return np.stack(rows) if rows else np.zeros((0, self._info.vocabulary_size), dtype=np.float32)

    def _fail(self, reason: str, chunks: Sequence[Chunk]) -> NoReturn:
        if not self._info.can_cut:
            for chunk in chunks:
                self._sequences.pop(chunk.sequence, None)
        raise DecodeError(reason)

    def _row(self, tokens: list[int]) -> NDArray[np.float32]:
        noise = np.random.default_rng(zlib.crc32(bytes(str(tokens), "ascii")))
        row = noise.standard_normal(self._info.vocabulary_size).astype(np.float32)
        row[self._script(tokens)] = 8.0
        return row

    def _check_chunks(self, chunks: Sequence[Chunk]) -> None:
        numbers = [chunk.sequence for chunk in chunks]
        problems = [
            (len(set(numbers)) != len(numbers), "a sequence occurs twice in a decode"),
            (any(not 0 <= number < self._info.max_sequences for number in numbers), "no such sequence"),
            (sum(len(chunk.tokens) for chunk in chunks) > self._info.batch_tokens, "more tokens than batch_tokens"),
            (any(not chunk.tokens for chunk in chunks), "a chunk without tokens"),
            (
                any(chunk.start != len(self._sequences.get(chunk.sequence, [])) for chunk in chunks),
                "not a continuation",
            ),
            (any(not 0 <= token < VOCABULARY for chunk in chunks for token in chunk.tokens), "no such token"),
        ]
        for wrong, text in problems:
            if wrong:
                raise ValueError(text)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let ``target`` hold the same cells as the beginning of ``source``."""
        self._begin()
        held = self._sequences.get(source, [])
        if not 0 <= target < self._info.max_sequences:
            raise ValueError("no such sequence")
        if self._sequences.get(target) or not 0 < length <= len(held):
            raise ValueError(f"cannot copy {length} tokens of {source} to {target}")
        if not self._info.can_cut and length != len(held):
            raise ValueError("a recurrent state is copied whole")
        self._sequences[target] = held[:length]
        self._computed_with[target] = self._computed_with.get(source)

    def cut(self, sequence: int, length: int) -> None:
        """Forget the end of a sequence."""
        self._begin()
        if not self._info.can_cut:
            raise ValueError("a recurrent state cannot be cut")
        del self._sequences.setdefault(sequence, [])[length:]

    def free(self, sequence: int) -> None:
        """Forget a sequence."""
        self._begin()
        self._sequences.pop(sequence, None)

    def embed(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Vectors that depend on each text's tokens alone."""
        self._begin()
        for text in texts:
            if not 0 < len(text) <= self._info.context_length or not all(0 <= token < VOCABULARY for token in text):
                raise ValueError("an empty or overlong text, or no such token")
        self._interrupt.clear()
        if self._step_seconds and self._interrupt.wait(self._step_seconds):
            raise DecodeError("interrupted")
        rows = [np.random.default_rng(zlib.crc32(bytes(str(list(text)), "ascii"))).standard_normal(8) for text in texts]
        vectors = np.array(rows, dtype=np.float32).reshape(len(texts), 8)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    def encode_for_embedding(self, text: str) -> list[int]:
        """BOS, the bytes, EOS; cut to the context."""
        return [BOS, *self.tokenize(text)[: self._info.context_length - 2], EOS]

    def interrupt(self) -> None:
        """End a running decode or embed."""
        self._interrupt.set()

    def close(self) -> None:
        """Forget everything."""
        self._closed = True
        self._sequences.clear()

    def _begin(self) -> None:
        """A call of the computing thread: what the one before it returned is valid no longer."""
        self._check_open()
        self._logits.fill(np.nan)

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise EngineForked("The scripted backend was made in a parent process.")
        if self._closed:
            raise EngineClosed("The scripted backend was closed.")
