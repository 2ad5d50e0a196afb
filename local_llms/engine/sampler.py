"""Logits → the next token, the same for every backend.

The order of operations is that of Hugging Face transformers' generation: bias and penalties, temperature, then the
cuts (top-k, typical, top-p, min-p), then the draw. Every row is treated on its own, so that a request's tokens depend
on its logits and its seed alone, whoever shares its batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from local_llms.types import SamplingParams

Row = NDArray[np.float32]

_FOLD = 64
"""Rows are folded into this many layers to find a bound for the k-th largest logit quickly."""


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

    def draw(self, row: Row) -> int:
        """The next token's id for logits of shape (vocabulary,); -1 where no token has a finite logit."""
        logits = self._adjusted(row) if self._changes_logits else row
        best = int(logits.argmax())
        if not math.isfinite(logits[best]):
            return -1
        token = best if self.params.temperature == 0.0 else self._choose(logits, best)
        self._count(token)
        return token

    def _adjusted(self, row: Row) -> Row:
        """A copy of the row with bias and penalties applied."""
        params, logits = self.params, row.astype(np.float32, copy=True)
        ids, bias = self._bias
        if ids.size:
            inside = ids < logits.shape[0]
            logits[ids[inside]] += bias[inside]
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

    def _choose(self, logits: Row, best: int) -> int:
        params = self.params
        ids = _candidates(logits, float(logits[best]), params)
        scaled = logits[ids].astype(np.float64) / params.temperature
        order = np.argsort(-scaled, kind="stable")
        ids, scaled = ids[order], scaled[order]
        if 0 < params.top_k < ids.size:
            ids, scaled = ids[: params.top_k], scaled[: params.top_k]
        probabilities = np.exp(scaled - scaled[0])
        probabilities /= probabilities.sum()
        if params.typical_p < 1.0:
            kept = _typical(probabilities, params.typical_p)
            ids, probabilities = ids[kept], probabilities[kept] / probabilities[kept].sum()
        if params.top_p < 1.0:
            # The token that crosses the bound is kept, and one token always is.
            count = int(np.searchsorted(np.cumsum(probabilities), params.top_p)) + 1
            ids, probabilities = ids[:count], probabilities[:count]
        if params.min_p > 0.0:
            enough = probabilities >= params.min_p * probabilities[0]
            ids, probabilities = ids[enough], probabilities[enough]
        cumulative = np.cumsum(probabilities)
        index = int(np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right"))
        return int(ids[min(index, ids.size - 1)])


def sample(rows: NDArray[np.float32], samplers: Sequence[Sampler]) -> list[int]:
    """Next tokens for logits of shape (rows, vocabulary), one sampler a row; -1 where a row has no finite logit."""
    if all(sampler.takes_maximum for sampler in samplers):
        best = rows.argmax(axis=1)
        finite = np.isfinite(rows[np.arange(len(samplers)), best])
        return np.where(finite, best, -1).tolist()  # type: ignore[no-any-return]
    return [sampler.draw(row) for row, sampler in zip(rows, samplers, strict=True)]


def log_probability(row: Row, token: int) -> float:
    """Natural logarithm of a token's probability under the softmax of a row of shape (vocabulary,)."""
    top = row.max()
    return float(row[token] - top) - math.log(float(np.exp(row - top).sum(dtype=np.float64)))


def _candidates(logits: Row, best: float, params: SamplingParams) -> NDArray[np.int64]:
    """Ids, ascending, among which are all that the cuts could keep. Cheap: no sort of the whole vocabulary."""
    size = logits.shape[0]
    if 0 < params.top_k < size // _FOLD:
        folded = logits[: size - size % _FOLD].reshape(_FOLD, -1).max(axis=0)
        # At least k logits are as large as the k-th largest maximum of the folds.
        bound = np.partition(folded, folded.size - params.top_k)[folded.size - params.top_k]
        return np.flatnonzero(logits >= bound)
    if params.typical_p < 1.0 or (params.top_p >= 1.0 and params.min_p == 0.0) or 0 < params.top_k < size:
        return np.flatnonzero(np.isfinite(logits))
    weights = np.exp((logits - np.float32(best)) / np.float32(params.temperature))
    # Tokens rarer than this sum to less than the mass that top-p cuts off.
    rare = (1.0 - params.top_p) / size * float(weights.sum(dtype=np.float64)) * 0.999
    return np.flatnonzero(weights >= max(rare, 0.999 * params.min_p if params.top_p >= 1.0 else 0.0))


def _typical(probabilities: NDArray[np.float64], mass: float) -> NDArray[np.int64]:
    """Indices, ascending, of the tokens whose surprise is nearest to the entropy, until their mass is reached."""
    surprise = -np.log(np.maximum(probabilities, 1e-300))
    entropy = float((probabilities * surprise).sum())
    order = np.argsort(np.abs(surprise - entropy), kind="stable")
    count = int(np.searchsorted(np.cumsum(probabilities[order]), mass)) + 1
    return np.sort(order[:count])
