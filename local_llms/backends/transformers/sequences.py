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
    """What one chunk needs: the tokens from ``first`` on, all of them in ``cells``, of which ``taken`` are new.

    They are computed as ``placement`` says; None where that can wait.
    """

    chunk: Chunk
    first: int
    tokens: Sequence[int]
    cells: CellIds
    taken: CellIds
    placement: Placement | None


class Sequences:
    """All sequences of one model. One thread uses them, except for ``interrupt``."""

    def __init__(self, network: Network, info: BackendInfo, store: KeyValueStore) -> None:
        self._network = network
        self._info = info
        self._store = store
        self._cells = Cells(info.cache_tokens, info.max_sequences)
        self._tokens: list[list[int]] = [[] for _ in range(info.max_sequences)]
        # Of each sequence's tokens, how many have their keys and values in its cells.
        self._computed = [0] * info.max_sequences
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
                self._cells.give_back(piece.taken)
            raise
        for piece in pieces:
            sequence = piece.chunk.sequence
            self._cells.extend(sequence, piece.first, piece.cells)
            self._tokens[sequence].extend(piece.chunk.tokens)
            if piece.placement is not None:
                self._computed[sequence] = len(self._tokens[sequence])
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
        self._computed[target] = self._lasting(source, length)

    def cut(self, sequence: int, length: int) -> None:
        """See ``Backend.cut``. Raises ValueError where it is not possible."""
        self._check_number(sequence)
        held = len(self._tokens[sequence])
        if not 0 <= length <= held:
            raise ValueError(f"cannot cut sequence {sequence}, which holds {held} tokens, to {length}")
        if length < held:
            self._cells.cut(sequence, length)
            self._computed[sequence] = self._lasting(sequence, length)
            del self._tokens[sequence][length:]

    def free(self, sequence: int) -> None:
        """See ``Backend.free``."""
        self.cut(sequence, 0)

    def interrupt(self) -> None:
        """Make a running ``decode`` end at its next layer. May be called from any thread."""
        self._interrupted.set()

    def _lasting(self, sequence: int, length: int) -> int:
        """Of a sequence's first tokens, how many have the keys and values that they have without the rest."""
        tokens, computed = self._tokens[sequence], self._computed[sequence]
        lasting = self._network.settled(tokens[:length]) or not self._network.settled(tokens)
        return min(computed, length) if lasting else 0

    def _place(self, chunks: Sequence[Chunk]) -> list[_Piece]:
        """Where all tokens stand, and cells for them. Raises CacheFull, and changes nothing then."""
        placements = [self._placement(chunk) for chunk in chunks]
        firsts = [
            len(self._tokens[chunk.sequence]) if placement is None else placement.first
            for chunk, placement in zip(chunks, placements, strict=True)
        ]
        # What is computed again may be so in place, unless another sequence has it too.
        alone = [self._cells.alone(chunk.sequence, first) for chunk, first in zip(chunks, firsts, strict=True)]
        wanted = [
            (chunk.sequence, len(chunk.tokens) + int((~own).sum())) for chunk, own in zip(chunks, alone, strict=True)
        ]
        pieces: list[_Piece] = []
        for chunk, placement, first, own, taken in zip(
            chunks, placements, firsts, alone, self._cells.take(wanted), strict=True
        ):
            sequence = chunk.sequence
            cells = np.concatenate((self._cells.of(sequence)[first:], taken[: len(chunk.tokens)]))
            cells[: len(own)][~own] = taken[len(chunk.tokens) :]
            # Whatever happens from here on, what stood there is lost.
            self._computed[sequence] = min(self._computed[sequence], first)
            tokens = [*self._tokens[sequence], *chunk.tokens][first:]
            pieces.append(_Piece(chunk, first, tokens, cells, taken, placement))
        return pieces

    def _placement(self, chunk: Chunk) -> Placement | None:
        """Where a chunk stands, with what has not been computed of its sequence yet; None where computing can wait."""
        held, computed = self._tokens[chunk.sequence], self._computed[chunk.sequence]
        if chunk.logits == "none" and not self._network.settled([*held, *chunk.tokens]):
            return None
        if computed == len(held):
            return self._network.place(held, chunk.tokens)
        return self._network.place(held[:computed], [*held[computed:], *chunk.tokens])

    @torch.inference_mode()
    def _compute(self, pieces: Sequence[_Piece], adapter: LoadedAdapter | None, scale: float) -> Logits:
        placed = [(piece, piece.placement) for piece in pieces if piece.placement is not None]
        if not placed:
            return np.empty((0, self._info.vocabulary_size), np.float32)
        spans: list[Span] = []
        rows: list[int] = []
        start = 0
        for piece, placement in placed:
            stop = start + len(piece.tokens)
            kept = self._cells.of(piece.chunk.sequence)[: piece.first]
            spans.append(Span(start, stop, np.concatenate((kept, piece.cells)), placement.sees))
            if piece.chunk.logits == "all":
                rows.extend(range(stop - len(piece.chunk.tokens), stop))
            elif piece.chunk.logits == "last":
                rows.append(stop - 1)
            start = stop
        prefix = adapter.prefix if adapter is not None else None
        attention = PackedAttention(
            self._store, spans, np.concatenate([piece.cells for piece, _ in placed]), prefix, self._interrupted.is_set
        )
        device = self._store.device
        ids = torch.tensor([token for piece, _ in placed for token in piece.tokens], device=device)
        positions = torch.from_numpy(np.concatenate([placement.positions for _, placement in placed])).to(device)
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
