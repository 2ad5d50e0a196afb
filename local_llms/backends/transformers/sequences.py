"""The sequences of a loaded model: decode, copy, cut, free. Cells and their contents change together, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from local_llms.backends.base import BackendInfo, Chunk, Logits
from local_llms.backends.transformers.attention import KeyValueStore, PackedAttention
from local_llms.backends.transformers.cells import CellIds, Cells
from local_llms.backends.transformers.config import first_line
from local_llms.backends.transformers.parts import LoadedAdapter, Network, Placement
from local_llms.backends.transformers.plan import Span
from local_llms.errors import DecodeError


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one chunk makes the network compute: the tokens from ``placement.first`` on, in cells of their own."""

    chunk: Chunk
    tokens: Sequence[int]
    placement: Placement
    cells: CellIds


class Sequences:
    """All sequences of one model. One thread uses them, except for ``interrupt``."""

    def __init__(self, network: Network, info: BackendInfo, store: KeyValueStore) -> None:
        self._network = network
        self._info = info
        self._store = store
        self._cells = Cells(info.cache_tokens, info.max_sequences)
        self._tokens: list[list[int]] = [[] for _ in range(info.max_sequences)]
        self._interrupted = threading.Event()

    def decode(self, chunks: Sequence[Chunk], adapter: LoadedAdapter | None = None, scale: float = 1.0) -> Logits:
        """See ``Backend.decode``. Raises ValueError for chunks that break its rules."""
        self._check(chunks)
        if not chunks:
            return np.empty((0, self._info.vocabulary_size), np.float32)
        self._interrupted.clear()
        pieces = self._place(chunks)
        try:
            logits = self._compute(pieces, adapter, scale)
        except BaseException:
            for piece in pieces:
                self._cells.give_back(piece.cells)
            raise
        for piece in pieces:
            sequence = piece.chunk.sequence
            self._cells.extend(sequence, piece.placement.first, piece.cells)
            self._tokens[sequence].extend(piece.chunk.tokens)
        return logits

    def copy(self, source: int, target: int, length: int) -> None:
        """See ``Backend.copy``. Raises ValueError where it is not possible."""
        self._check_number(source)
        self._check_number(target)
        held = len(self._tokens[source])
        if self._tokens[target] or not 0 < length <= held:
            raise ValueError(
                f"cannot copy {length} tokens of sequence {source}, which holds {held}, to {target}, which holds "
                f"{len(self._tokens[target])}"
            )
        self._cells.share(source, target, length)
        self._tokens[target] = self._tokens[source][:length]

    def cut(self, sequence: int, length: int) -> None:
        """See ``Backend.cut``. Raises ValueError where it is not possible."""
        self._check_number(sequence)
        held = len(self._tokens[sequence])
        if not 0 <= length <= held:
            raise ValueError(f"cannot cut sequence {sequence}, which holds {held} tokens, to {length}")
        if length < held:
            self._cells.cut(sequence, length)
            del self._tokens[sequence][length:]

    def free(self, sequence: int) -> None:
        """See ``Backend.free``."""
        self.cut(sequence, 0)

    def interrupt(self) -> None:
        """Make a running ``decode`` end at its next layer. May be called from any thread."""
        self._interrupted.set()

    def _place(self, chunks: Sequence[Chunk]) -> list[_Piece]:
        """Where all tokens stand, and cells for them. Raises CacheFull."""
        placements = [self._network.place(self._tokens[chunk.sequence], chunk.tokens) for chunk in chunks]
        wanted = [
            (chunk.sequence, len(placement.positions)) for chunk, placement in zip(chunks, placements, strict=True)
        ]
        cells = self._cells.take(wanted)
        return [
            _Piece(chunk, [*self._tokens[chunk.sequence][placement.first :], *chunk.tokens], placement, taken)
            for chunk, placement, taken in zip(chunks, placements, cells, strict=True)
        ]

    @torch.inference_mode()
    def _compute(self, pieces: Sequence[_Piece], adapter: LoadedAdapter | None, scale: float) -> Logits:
        spans: list[Span] = []
        rows: list[int] = []
        start = 0
        for piece in pieces:
            stop = start + len(piece.tokens)
            kept = self._cells.of(piece.chunk.sequence)[: piece.placement.first]
            spans.append(Span(start, stop, np.concatenate((kept, piece.cells)), piece.placement.sees))
            if piece.chunk.logits == "all":
                rows.extend(range(stop - len(piece.chunk.tokens), stop))
            elif piece.chunk.logits == "last":
                rows.append(stop - 1)
            start = stop
        prefix = adapter.prefix if adapter is not None else None
        attention = PackedAttention(
            self._store, spans, np.concatenate([piece.cells for piece in pieces]), prefix, self._interrupted.is_set
        )
        device = self._store.device
        ids = torch.tensor([token for piece in pieces for token in piece.tokens], device=device)
        positions = torch.from_numpy(np.concatenate([piece.placement.positions for piece in pieces])).to(device)
        wanted = torch.tensor(rows or [0], device=device)
        with _failures(), _active(adapter, scale):
            logits = self._network.forward(ids, positions, attention, wanted)
            return logits[: len(rows)].float().cpu().numpy()

    def _check_number(self, sequence: int) -> None:
        if not 0 <= sequence < len(self._tokens):
            raise ValueError(f"there is no sequence {sequence}; there are {len(self._tokens)}")

    def _check(self, chunks: Sequence[Chunk]) -> None:
        """Raise ValueError for chunks that break the rules of the protocol."""
        total = 0
        for chunk in chunks:
            number, count = chunk.sequence, len(chunk.tokens)
            self._check_number(number)
            held = len(self._tokens[number])
            if chunk.start != held:
                raise ValueError(f"sequence {number} holds {held} tokens, and a chunk begins at {chunk.start}")
            if not count:
                raise ValueError(f"the chunk for sequence {number} has no tokens")
            if held + count > self._info.context_length:
                raise ValueError(f"sequence {number} would hold more than {self._info.context_length} tokens")
            if min(chunk.tokens) < 0 or max(chunk.tokens) >= self._info.vocabulary_size:
                raise ValueError(
                    f"a chunk has a token that does not exist; the vocabulary has {self._info.vocabulary_size}"
                )
            if chunk.logits not in ("none", "last", "all"):
                raise ValueError(f'logits is "none", "last" or "all", not {chunk.logits!r}')
            total += count
        if len({chunk.sequence for chunk in chunks}) != len(chunks):
            raise ValueError("a sequence occurs twice in one decode")
        if total > self._info.batch_tokens:
            raise ValueError(f"{total} tokens in one decode; at most {self._info.batch_tokens} are possible")


def _active(adapter: LoadedAdapter | None, scale: float) -> AbstractContextManager[None]:
    return nullcontext() if adapter is None else adapter.active(scale)


@contextmanager
def _failures() -> Iterator[None]:
    """What torch raises while computing, most often for want of memory, as DecodeError."""
    try:
        yield
    except RuntimeError as error:
        raise DecodeError(f"torch could not compute these tokens: {first_line(error)}") from error
