"""Logits → the next token, the same for every backend.

The order of operations is bias, penalties, temperature, then the cuts (top-k, typical, top-p, min-p), then the draw;
each cut sees the probabilities that the one before it left. Every row is treated on its own, so that a request's tokens
depend on its logits and its seed alone, whoever shares its batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from local_llms.types import SamplingParams

Row = NDArray[np.float32]

Allowed = NDArray[np.bool_]
"""Which tokens may come: shape (vocabulary,)."""

_NEVER = np.float32(-np.inf)

_FOLD = 64
"""Rows are folded into this many layers to find a bound for the k-th largest logit quickly."""

_COLDEST = 1e-6
"""Smaller temperatures count as this one, under which float32 logits that differ are as good as certain."""

_SLACK = 0.999
"""Keeps a quick bound on the safe side of rounding; the exact cut follows."""


class Sampler:
    """The sampling state of one request: its random numbers and its counts of tokens."""

    def __init__(self, params: SamplingParams, prompt_ids: Sequence[int]) -> None:
        """``prompt_ids`` count for the repetition penalty only."""
        self.params = params
        self._random = np.random.default_rng(params.seed)
        self._counts: dict[int, float] = {}
        self._seen = set(prompt_ids) if params.repetition_penalty != 1.0 else set()
        self._counting = params.frequency_penalty != 0.0 or params.presence_penalty != 0.0
        self._bias = (
            np.fromiter(params.logit_bias.keys(), dtype=np.int64, count=len(params.logit_bias)),
            np.fromiter(params.logit_bias.values(), dtype=np.float32, count=len(params.logit_bias)),
        )
        self._changes_logits = bool(params.logit_bias) or params.repetition_penalty != 1.0 or self._counting
        self.takes_maximum = params.temperature == 0.0 and not self._changes_logits
        """Whether the next token is simply the largest logit."""

    def draw(self, row: Row, allowed: Allowed | None = None) -> int:
        """The next token's id for logits of shape (vocabulary,), among the allowed ones.

        -1 where no token has a finite logit.
        """
        logits = self._adjusted(row) if self._changes_logits else row
        if allowed is not None:
            logits = np.where(allowed, logits, _NEVER)
        token = int(logits.argmax())
        if not math.isfinite(logits[token]):
            return -1
        if self.params.temperature > 0.0:
            ids, probabilities = distribution(logits, self.params)
            cumulative = np.cumsum(probabilities)
            index = int(np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right"))
            token = int(ids[min(index, ids.size - 1)])
        self._count(token)
        return token

    def _adjusted(self, row: Row) -> Row:
        """A copy of the row with bias and penalties applied."""
        params, logits = self.params, row.astype(np.float32, copy=True)
        ids, bias = self._bias
        if ids.size:
            logits[ids] += bias
        if self._seen:
            seen = np.fromiter(self._seen, dtype=np.int64, count=len(self._seen))
            values = logits[seen]
            factor = np.float32(params.repetition_penalty)
            logits[seen] = np.where(values > 0, values / factor, values * factor)
        if self._counts:
            counted = np.fromiter(self._counts.keys(), dtype=np.int64, count=len(self._counts))
            counts = np.fromiter(self._counts.values(), dtype=np.float32, count=len(self._counts))
            logits[counted] -= counts * np.float32(params.frequency_penalty) + np.float32(params.presence_penalty)
        return logits

    def _count(self, token: int) -> None:
        if self.params.repetition_penalty != 1.0:
            self._seen.add(token)
        if self._counting:
            if self.params.penalty_decay != 1.0:
                for known in self._counts:
                    self._counts[known] *= self.params.penalty_decay
            self._counts[token] = self._counts.get(token, 0.0) + 1.0


def sample(
    rows: NDArray[np.float32], samplers: Sequence[Sampler], allowed: Sequence[Allowed | None] | None = None
) -> list[int]:
    """Next tokens for logits of shape (rows, vocabulary), one sampler a row; -1 where a row has no finite logit.

    ``allowed``: for each row, which tokens may come; None where all may.
    """
    if allowed is not None and any(one is not None for one in allowed):
        return [sampler.draw(*row) for sampler, *row in zip(samplers, rows, allowed, strict=True)]
    if all(sampler.takes_maximum for sampler in samplers):
        best = rows.argmax(axis=1)
        finite = np.isfinite(rows[np.arange(len(samplers)), best])
        return np.where(finite, best, -1).tolist()  # type: ignore[no-any-return]
    return [sampler.draw(row) for row, sampler in zip(rows, samplers, strict=True)]


def distribution(logits: Row, params: SamplingParams) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What the draw chooses from: token ids, and numbers proportional to their probabilities after every cut.

    ``logits`` has the shape (vocabulary,), bias and penalties applied, and a finite maximum. The temperature is not 0.
    """
    ids, probabilities = _candidates(logits, params)
    if params.typical_p < 1.0:
        kept = _typical(probabilities, params.typical_p)
        ids, probabilities = ids[kept], probabilities[kept] / probabilities[kept].sum()
    if params.top_p < 1.0:
        order = np.argsort(-probabilities, kind="stable")
        # The token that crosses the bound is kept, and one token always is.
        order = order[: int(np.searchsorted(np.cumsum(probabilities[order]), params.top_p)) + 1]
        ids, probabilities = ids[order], probabilities[order]
    if params.min_p > 0.0:
        enough = probabilities >= params.min_p * probabilities.max()
        ids, probabilities = ids[enough], probabilities[enough]
    return ids, probabilities


def _candidates(logits: Row, params: SamplingParams) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids, ascending, among which are all that the cuts after top-k could keep, and their probabilities after top-k.

    The probabilities need not sum to 1: what is left out counts in their denominator. No sort of the whole vocabulary.
    """
    ids = _largest(logits, params.top_k) if 0 < params.top_k < logits.shape[0] else None
    listed = logits if ids is None else logits[ids]
    with np.errstate(over="ignore"):
        weights = np.exp((listed - listed.max()) / max(params.temperature, _COLDEST))
    total = float(weights.sum(dtype=np.float64))
    bound = 0.0
    if params.typical_p >= 1.0:
        # Tokens rarer than the first sum to less than the mass that top-p cuts off; the largest weight is 1.
        bound = _SLACK * max((1.0 - params.top_p) / weights.shape[0] * total, params.min_p)
    kept = np.flatnonzero(weights >= bound if bound > 0.0 else weights)
    return (kept if ids is None else ids[kept]), weights[kept].astype(np.float64) / total


def _largest(logits: Row, count: int) -> NDArray[np.int64]:
    """Ids, ascending, of the ``count`` largest logits; of equal ones the first. Fewer than all."""
    size = logits.shape[0]
    folds = logits
    if count < size // _FOLD:
        # At least k logits are as large as the k-th largest maximum of the folds.
        folds = logits[: size - size % _FOLD].reshape(_FOLD, -1).max(axis=0)
    at = folds.shape[0] - count
    ids = np.flatnonzero(logits >= np.partition(folds, at)[at])
    if ids.shape[0] == count:
        return ids
    return np.sort(ids[np.argsort(-logits[ids], kind="stable")[:count]])


def _typical(probabilities: NDArray[np.float64], mass: float) -> NDArray[np.int64]:
    """Indices of the tokens whose surprise is nearest to the entropy, until their mass is reached."""
    surprise = -np.log(np.maximum(probabilities, 1e-300))
    entropy = float((probabilities * surprise).sum())
    order = np.argsort(np.abs(surprise - entropy), kind="stable")
    count = int(np.searchsorted(np.cumsum(probabilities[order]), mass)) + 1
    return order[:count]
