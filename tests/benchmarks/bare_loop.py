"""The yardstick: greedy answers straight from ``llama_decode`` and argmax.

It knows nothing of this package. Nothing is scheduled, sampled, stopped, streamed or kept: prompts are computed in full
batches, a prefix that several prompts share is computed once, then every answer that has not ended takes one token per
decode. What the engine needs beyond this is what the engine costs.

Prompts are lists of token ids. Loading the model and building the context are not part of the measured seconds.

    with BareLoop(path, threads=2) as loop:
        run = loop.many(prompts, max_tokens=48)
        print(run.tokens_per_second)

Settings that were fastest on two AVX2 cores are the defaults: flash attention, 512 tokens in a batch and a micro-batch,
as many threads as there are cores.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import llama_cpp.llama_cpp as lib
import numpy as np


@dataclass(frozen=True)
class Run:
    """Answers, as token ids with the end token left out, and what they cost.

    ``prompt_seconds`` is the part of ``seconds`` until every prompt was computed. ``computed_prompt_tokens`` counts a
    shared prefix once.
    """

    answers: list[list[int]]
    seconds: float
    prompt_seconds: float
    computed_prompt_tokens: int

    @property
    def tokens(self) -> int:
        """Generated tokens of all answers."""
        return sum(len(answer) for answer in self.answers)

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second, prompts included in the time."""
        return self.tokens / self.seconds


class BareLoop:
    """A llama.cpp model and context of its own, for measuring only."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        context: int = 8192,
        sequences: int = 64,
        batch: int = 512,
        micro_batch: int = 512,
        threads: int | None = None,
        flash_attention: bool = True,
    ) -> None:
        """``context`` is the number of tokens that all sequences share; ``threads`` None takes the process's cores."""
        self._earlier_log = silence()
        cores = threads or len(os.sched_getaffinity(0))
        self._model = lib.llama_model_load_from_file(os.fsencode(Path(path)), lib.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        params = lib.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = batch
        params.n_ubatch = min(micro_batch, batch)
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = cores
        params.kv_unified = True
        params.flash_attn_type = 1 if flash_attention else 0
        self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError("llama.cpp cannot make a context")
        self._memory = lib.llama_get_memory(self._context)
        vocab = lib.llama_model_get_vocab(self._model)
        self._vocab = vocab
        self._width = lib.llama_vocab_n_tokens(vocab)
        self._ends = frozenset(i for i in range(self._width) if lib.llama_vocab_is_eog(vocab, i))
        self._batch_size = batch
        self._sequences = sequences
        self._batch = _Batch(batch, sequences)

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a rendered prompt, its markers read as special tokens."""
        data = text.encode()
        room = len(data) + 16
        ids = (lib.llama_token * room)()
        count = lib.llama_tokenize(self._vocab, data, len(data), ids, room, False, special)
        return list(ids[:count])

    def one(self, prompt: Sequence[int], max_tokens: int, *, ignore_end: bool = False) -> Run:
        """One greedy answer."""
        return self.many([prompt], max_tokens, ignore_end=ignore_end)

    def many(self, prompts: Sequence[Sequence[int]], max_tokens: int, *, ignore_end: bool = False) -> Run:
        """A greedy answer for each prompt, each ending at its own end token or at ``max_tokens``, decoded together."""
        if len(prompts) > self._sequences:
            raise ValueError(f"{len(prompts)} prompts for {self._sequences} sequences")
        lib.llama_memory_clear(self._memory, False)
        ends = frozenset() if ignore_end else self._ends
        begin = time.perf_counter()
        pieces = shared_pieces(prompts)
        first = self._prefill(prompts, pieces)
        prefilled = time.perf_counter()
        answers: list[list[int]] = [[] for _ in prompts]
        alive = []
        for sequence, token in enumerate(first):
            if token in ends:
                continue
            answers[sequence].append(token)
            if max_tokens > 1:
                alive.append(sequence)
        batch, row_width = self._batch, self._width
        while alive:
            count = len(alive)
            batch.tokens[:count] = [answers[sequence][-1] for sequence in alive]
            batch.positions[:count] = [len(prompts[sequence]) + len(answers[sequence]) - 1 for sequence in alive]
            batch.single_sequences(alive)
            batch.logits[:count] = 1
            rows = self._decode(count, count, row_width)
            going = []
            for sequence, token in zip(alive, rows.argmax(axis=1).tolist(), strict=True):
                if token in ends:
                    continue
                answers[sequence].append(token)
                if len(answers[sequence]) < max_tokens:
                    going.append(sequence)
            alive = going
        end = time.perf_counter()
        return Run(answers, end - begin, prefilled - begin, sum(piece.stop - piece.start for piece in pieces))

    def _prefill(self, prompts: Sequence[Sequence[int]], pieces: Sequence[Piece]) -> list[int]:
        """Compute every prompt, in full batches; returns the first token of each answer."""
        batch = self._batch
        first = [0] * len(prompts)
        ending: list[list[int]] = []  # for each row asked for, the prompts that end there
        used = 0

        def flush() -> None:
            rows = self._decode(used, len(ending), self._width)
            if ending:
                for sequences, token in zip(ending, rows.argmax(axis=1).tolist(), strict=True):
                    for sequence in sequences:
                        first[sequence] = token

        for piece in pieces:
            at = piece.start
            while at < piece.stop:
                step = min(self._batch_size - used, piece.stop - at)
                batch.tokens[used : used + step] = prompts[piece.owners[0]][at : at + step]
                batch.positions[used : used + step] = range(at, at + step)
                batch.shared_sequences(used, step, piece.owners)
                batch.logits[used : used + step] = 0
                at, used = at + step, used + step
                here = [sequence for sequence in piece.owners if len(prompts[sequence]) == at]
                if here:
                    batch.logits[used - 1] = 1
                    ending.append(here)
                if used == self._batch_size:
                    flush()
                    used, ending = 0, []
        if used:
            flush()
        return first

    def _decode(self, tokens: int, rows: int, width: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        self._batch.native.n_tokens = tokens
        code = lib.llama_decode(self._context, self._batch.native)
        if code != 0:
            raise RuntimeError(f"llama_decode gave {code}")
        if not rows:
            return np.empty((0, width), np.float32)
        address = ctypes.cast(lib.llama_get_logits(self._context), ctypes.c_void_p).value
        return np.frombuffer((ctypes.c_float * (rows * width)).from_address(address or 0), np.float32).reshape(rows, -1)

    def close(self) -> None:
        """Free context and model."""
        if self._context:
            lib.llama_free(self._context)
            lib.llama_model_free(self._model)
            self._context = self._model = None
            lib.llama_log_set(*self._earlier_log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Piece:
    """Tokens ``start`` to ``stop`` of the prompts in ``owners``, which all agree up to there."""

    start: int
    stop: int
    owners: tuple[int, ...]


def shared_pieces(prompts: Sequence[Sequence[int]]) -> list[Piece]:
    """Cut prompts into pieces such that a common prefix is one piece with several owners; parents come first."""

    def split(owners: list[int], start: int) -> None:
        groups: dict[int, list[int]] = {}
        for owner in owners:
            if start < len(prompts[owner]):
                groups.setdefault(prompts[owner][start], []).append(owner)
        for group in groups.values():
            stop = common_length([prompts[owner] for owner in group], start)
            pieces.append(Piece(start, stop, tuple(group)))
            if len(group) > 1:
                split(group, stop)

    pieces: list[Piece] = []
    split(list(range(len(prompts))), 0)
    return pieces


def common_length(prompts: Sequence[Sequence[int]], start: int) -> int:
    """The number of leading tokens that all prompts share, given that they share ``start``."""
    shortest = min(len(prompt) for prompt in prompts)
    at = start
    while at < shortest and all(prompt[at] == prompts[0][at] for prompt in prompts):
        at += 1
    return at


class _Batch:
    """A llama_batch over numpy arrays. A token's sequence ids lie in one row of a table."""

    def __init__(self, size: int, sequences: int) -> None:
        self.tokens = np.zeros(size, np.int32)
        self.positions = np.zeros(size, np.int32)
        self.logits = np.zeros(size, np.int8)
        self._counts = np.ones(size, np.int32)
        self._table = np.zeros((size, sequences), np.int32)
        self._rows = (self._table.ctypes.data + self._table.strides[0] * np.arange(size)).astype(np.uintp)
        self.native = lib.llama_batch(
            n_tokens=0,
            token=_pointer(self.tokens, lib.llama_token),
            pos=_pointer(self.positions, lib.llama_pos),
            n_seq_id=_pointer(self._counts, ctypes.c_int32),
            seq_id=_pointer(self._rows, ctypes.POINTER(lib.llama_seq_id)),
            logits=_pointer(self.logits, ctypes.c_int8),
        )

    def single_sequences(self, sequences: Sequence[int]) -> None:
        """Token i belongs to the i-th of ``sequences``."""
        self._counts[: len(sequences)] = 1
        self._table[: len(sequences), 0] = sequences

    def shared_sequences(self, start: int, count: int, owners: Sequence[int]) -> None:
        """``count`` tokens from ``start`` on belong to all ``owners``."""
        self._counts[start : start + count] = len(owners)
        self._table[start : start + count, : len(owners)] = owners


def _pointer(array: np.ndarray[Any, Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))


def silence() -> tuple[Any, ctypes.c_void_p]:
    """Drop what llama.cpp prints; returns the callback that was there, and its data."""
    callback, data = lib.llama_log_callback(), ctypes.c_void_p()
    lib.llama_log_get(ctypes.byref(callback), ctypes.byref(data))
    lib.llama_log_set(_drop, None)
    return callback, data


_drop = lib.llama_log_callback(lambda level, text, data: None)
