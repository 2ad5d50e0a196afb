"""RWKV-7 ("Goose", World, G1): the matrix of a head is not only decayed and added to, but corrected where it is wrong.

Peng et al. 2025, "RWKV-7 Goose with Expressive Dynamic State Evolution", section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from local_llms.backends.rwkv.batch import Batch
from local_llms.backends.rwkv.layers import Norm, PlainChannelMix, head_shape, linear
from local_llms.backends.rwkv.recurrence import corrected
from local_llms.backends.rwkv.states import StateShape
from local_llms.backends.rwkv.weights import Weights

_STRONGEST_DECAY = -math.exp(-0.5)
"""Its logarithm, per token."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """``base + f(x A) B``: a small network that computes something per channel from the text."""

    base: torch.Tensor | None
    into: torch.Tensor
    out: torch.Tensor

    @classmethod
    def read(cls, weights: Weights, name: str, width: int, *, base: bool = True) -> LowRank:
        """Take ``NAME0`` (unless it has none), ``NAME1`` and ``NAME2``. Raises ModelFileError."""
        shape = weights.shape(f"{name}1")
        if len(shape) != 2 or shape[0] != width:
            raise weights.bad(f"{name}1 has the shape {shape} instead of ({width}, rank)")
        return cls(
            weights.exact(f"{name}0", width) if base else None,
            weights.matrix(f"{name}1", width, shape[1]).t().contiguous(),
            weights.matrix(f"{name}2", shape[1], width).t().contiguous(),
        )

    def inner(self, x: torch.Tensor) -> torch.Tensor:
        """``x A``, shape (rows, rank)."""
        return linear(x, self.into)

    def outer(self, inner: torch.Tensor) -> torch.Tensor:
        """``base + inner B``, shape (rows, width)."""
        out = linear(inner, self.out)
        return out if self.base is None else out.add_(self.base)


@dataclass(frozen=True, slots=True)
class TimeMix7:
    """The recurrent half of a layer.

    ``mixes``: (6, 1, width), how much of the token before goes into r, w, k, v, a, g. ``value_residual``: how much of
    the first layer's value is taken; None in the first layer. ``rate_share``: how much the key depends on the rate at
    which the state is corrected, and ``fixed_share``, 1 less that.
    """

    mixes: torch.Tensor
    decay: LowRank
    rate: LowRank
    gate: LowRank
    value_residual: LowRank | None
    removal: torch.Tensor
    rate_share: torch.Tensor
    fixed_share: torch.Tensor
    bonus: torch.Tensor
    receptance: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor
    norm: Norm

    @classmethod
    def read(cls, weights: Weights, prefix: str, width: int, heads: int, *, first: bool) -> TimeMix7:
        """Take the weights of one layer. Raises ModelFileError."""
        if first:
            # Training programs store them for the first layer as well, and no program reads them.
            for name in ("v0", "v1", "v2"):
                weights.skip(f"{prefix}{name}")
        return cls(
            mixes=torch.stack([weights.exact(f"{prefix}x_{which}", 1, width) for which in "rwkvag"]),
            decay=LowRank.read(weights, f"{prefix}w", width),
            rate=LowRank.read(weights, f"{prefix}a", width),
            gate=LowRank.read(weights, f"{prefix}g", width, base=False),
            value_residual=None if first else LowRank.read(weights, f"{prefix}v", width),
            removal=weights.exact(f"{prefix}k_k", width),
            rate_share=weights.exact(f"{prefix}k_a", width),
            fixed_share=1 - weights.exact(f"{prefix}k_a", width),
            bonus=weights.exact(f"{prefix}r_k", heads, width // heads),
            receptance=weights.square(f"{prefix}receptance", width),
            key=weights.square(f"{prefix}key", width),
            value=weights.square(f"{prefix}value", width),
            output=weights.square(f"{prefix}output", width),
            norm=Norm.read(weights, f"{prefix}ln_x", width, 64e-5, heads),
        )

    def __call__(
        self, x: torch.Tensor, before: torch.Tensor, memory: torch.Tensor, batch: Batch, first: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See ``TimeMix``. ``memory``: (sequences, heads, key size, value size). What is handed on is the value."""
        heads = (len(x), *self.bonus.shape)
        apart = before - x
        xr, xw, xk, xv, xa, xg = torch.addcmul(x, apart, self.mixes)
        log_decay = self.decay.outer(self.decay.inner(xw).tanh_()).sigmoid_().mul_(_STRONGEST_DECAY)
        rate = self.rate.outer(self.rate.inner(xa)).sigmoid_()
        receptance = linear(xr, self.receptance).view(heads)
        key, value = linear(xk, self.key), linear(xv, self.value)
        if self.value_residual is None or first is None:
            first = value
        else:
            residual = self.value_residual
            value = torch.lerp(value, first, residual.outer(residual.inner(xv)).sigmoid_())
        removed = functional.normalize((key * self.removal).view(heads), dim=-1)
        key = (key * torch.addcmul(self.fixed_share, rate, self.rate_share)).view(heads)
        values = value.view(heads)
        towards = removed * rate.view(heads)
        read = corrected(memory, receptance, key, values, log_decay.view(heads), -removed, towards, batch)
        own = (receptance * key * self.bonus).sum(dim=-1, keepdim=True) * values
        out = self.norm(read.flatten(1)) + own.flatten(1)
        gate = self.gate.outer(self.gate.inner(xg).sigmoid_())
        return linear(out * gate, self.output), first


def read_layers(weights: Weights, layers: int, width: int) -> tuple[list[tuple[TimeMix7, PlainChannelMix]], StateShape]:
    """The layers, and what a sequence keeps. Raises ModelFileError."""
    heads, size = head_shape(weights, "blocks.0.att.r_k", width)
    found = [
        (
            TimeMix7.read(weights, f"blocks.{layer}.att.", width, heads, first=layer == 0),
            PlainChannelMix.read(weights, f"blocks.{layer}.ffn.", width),
        )
        for layer in range(layers)
    ]
    initial = torch.zeros(layers, heads, size, size, device=weights.device)
    return found, StateShape(layers, width, (heads, size, size), initial)
