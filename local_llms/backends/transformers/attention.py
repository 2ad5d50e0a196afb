"""Keys and values of all sequences, and the attention over them, in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray

from local_llms.backends.transformers.cells import CellIds
from local_llms.backends.transformers.parts import LayerShape, Prefix
from local_llms.backends.transformers.plan import Group, Span, everything, plan
from local_llms.errors import DecodeError


class KeyValueStore:
    """Keys and values of every cell and layer, each layer's of shape (cells, heads, size)."""

    def __init__(self, cells: int, layers: Sequence[LayerShape], dtype: torch.dtype, device: torch.device) -> None:
        """Memory that was never written holds zeros: padding is masked, but a masked NaN is still one."""
        self.keys = [torch.zeros(cells, layer.heads, layer.key_size, dtype=dtype, device=device) for layer in layers]
        self.values = [
            torch.zeros(cells, layer.heads, layer.value_size, dtype=dtype, device=device) for layer in layers
        ]
        self._overflows = dtype == torch.float16
        self.dtype = dtype
        self.device = device

    def write(self, layer: int, cells: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Keep what new tokens computed. Shapes (tokens, heads, size)."""
        key, value = key.to(self.dtype), value.to(self.dtype)
        if self._overflows:
            # A request whose numbers went out of range must not reach those that share cells with it.
            key, value = key.nan_to_num(), value.nan_to_num()
        self.keys[layer].index_copy_(0, cells, key)
        self.values[layer].index_copy_(0, cells, value)


class PackedAttention:
    """Implements ``Attention`` for one call."""

    def __init__(
        self,
        store: KeyValueStore,
        spans: Sequence[Span],
        new_cells: CellIds,
        prefix: Prefix | None,
        interrupted: Callable[[], bool],
    ) -> None:
        """``spans``: all sequences of the call. ``new_cells``: where each packed token is kept.

        ``interrupted`` is asked once per layer; the call ends with DecodeError where it says so.
        """
        self._store = store
        self._interrupted = interrupted
        self._prefix = prefix
        self._new = torch.from_numpy(new_cells).to(store.device)
        self._count = len(new_cells)
        self._spans = spans
        self._before = prefix.length if prefix is not None else 0

    @cached_property
    def _groups(self) -> list[_Reading]:
        return [_Reading(group, self._before, self._store.device, self._count) for group in plan(self._spans)]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        *,
        window: int | None = None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        """See ``Attention.attend``."""
        keys, values = self._keep(layer, key, value)
        groups = self._groups

        def of(group: _Reading) -> torch.Tensor:
            k, v = self._read(group, layer, keys, values)
            rows = query if group.whole else query[group.rows]
            return _attend(rows, k, v, group.mask(query.shape[1] // k.shape[1], window), scale, softcap)

        if len(groups) == 1 and groups[0].whole:
            return of(groups[0])
        result = query.new_empty(self._count, query.shape[1], values.shape[2])
        for group in groups:
            result[group.rows] = of(group)
        return result

    def exchange(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Attention.exchange``."""
        k, v = self._read(self._all, layer, *self._keep(layer, key, value))
        return k[0].transpose(0, 1), v[0].transpose(0, 1)

    def visible(self) -> torch.Tensor:
        """See ``Attention.visible``."""
        return self._all.seen()

    @cached_property
    def _all(self) -> _Reading:
        return _Reading(everything(self._spans), self._before, self._store.device, self._count)

    def _read(
        self, group: _Reading, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What a group reads of a layer's cells, behind the prefix where there is one."""
        k, v = group.read(keys), group.read(values)
        if self._prefix is None:
            return k, v
        return _with_prefix(self._prefix.keys[layer], k), _with_prefix(self._prefix.values[layer], v)

    def _keep(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new tokens' keys and values; all cells' of that layer."""
        if self._interrupted():
            raise DecodeError("The computation was interrupted.")
        self._store.write(layer, self._new, key, value)
        return self._store.keys[layer], self._store.values[layer]


class _Reading:
    """A group on the device: which rows ask, where they read, and what they may see."""

    def __init__(self, group: Group, before: int, device: torch.device, count: int) -> None:
        """``before``: tokens of a prefix that everyone sees. ``count``: packed tokens of the call."""
        self._group = group
        self._before = before
        self._device = device
        self._masks: dict[tuple[int, int | None], torch.Tensor | None] = {}
        self.whole = len(group.rows) == count and bool((np.diff(group.rows) == 1).all())
        self.rows = torch.from_numpy(group.rows).to(device)
        cells = group.cells.reshape(-1)
        first = int(cells[0])
        self._run = (first, len(cells)) if bool((np.diff(cells) == 1).all()) else None
        self._cells = torch.from_numpy(cells).to(device) if self._run is None else None

    def read(self, store: torch.Tensor) -> torch.Tensor:
        """What the blocks read, shape (blocks, heads, width, size); in place where the cells are one run."""
        if self._cells is not None:
            found = store.index_select(0, self._cells)
        else:
            start, length = self._run or (0, 0)
            found = store.narrow(0, start, length)
        return found.view(self._group.blocks, -1, *found.shape[1:]).transpose(1, 2)

    def mask(self, times: int, window: int | None) -> torch.Tensor | None:
        """What each token sees, repeated for so many heads that share a key-value head; None where that is all.

        Shape (blocks, 1, times * tokens, width), the heads' tokens one after the other.
        """
        key = (times, window)
        if key not in self._masks:
            seen = self._seen(window)
            whole = bool(seen.all())
            self._masks[key] = (
                None if whole else torch.from_numpy(np.tile(seen, (1, times, 1))).to(self._device)[:, None]
            )
        return self._masks[key]

    def seen(self) -> torch.Tensor:
        """What each token sees, shape (tokens, width), for a group of one block."""
        return torch.from_numpy(self._seen(None)[0]).to(self._device)

    def _seen(self, window: int | None) -> NDArray[np.bool_]:
        group = self._group
        sees = group.sees[:, :, None]
        seen = (group.rank >= 0) & (group.rank < sees)
        if window is not None:
            seen &= group.rank >= sees - window
        if self._before:
            seen = np.concatenate((np.ones((*seen.shape[:2], self._before), np.bool_), seen), axis=2)
        return seen


def _with_prefix(prefix: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Keys or values of a prefix, shape (length, heads, size), in front of each block's own."""
    first = prefix.transpose(0, 1)[None].expand(own.shape[0], -1, -1, -1)
    return torch.cat((first.to(own.dtype), own), dim=2)


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    softcap: float | None,
) -> torch.Tensor:
    """Attention of (blocks * tokens, heads, size) queries; the result has the same order.

    Query heads that share a key-value head are put into one, as more tokens: nothing is repeated.
    """
    blocks, heads, _, size = key.shape
    tokens, times = query.shape[0] // blocks, query.shape[1] // heads
    folded = query.view(blocks, tokens, heads, times, size).permute(0, 2, 3, 1, 4)
    folded = folded.reshape(blocks, heads, times * tokens, size)
    if softcap is None:
        found = functional.scaled_dot_product_attention(
            folded, key.to(folded.dtype), value.to(folded.dtype), attn_mask=mask, scale=scale
        )
    else:
        found = _capped(folded, key, value, mask, scale, softcap)
    found = found.view(blocks, heads, times, tokens, -1).permute(0, 3, 1, 2, 4)
    return found.reshape(blocks * tokens, heads * times, -1)


def _capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    softcap: float,
) -> torch.Tensor:
    """Attention with soft capping of the scores (Gemma 2), which torch's own function does not have."""
    scores = torch.matmul(query, key.transpose(-1, -2)) * scale
    scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return torch.matmul(scores.softmax(-1, dtype=torch.float32).to(query.dtype), value)
