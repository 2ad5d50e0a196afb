"""What the versions have in common: norms, the mixing of a token with the one before, and the channel mix.

All of it works on rows, shape (tokens, width), as ``batch`` lays them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional

from local_llms.backends.rwkv.batch import Batch
from local_llms.backends.rwkv.weights import Weights


class TimeMix(Protocol):
    """The recurrent half of a layer, one class per version."""

    def __call__(
        self, x: torch.Tensor, before: torch.Tensor, memory: torch.Tensor, batch: Batch, first: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """``x`` and ``before``: (rows, width), each token and the one before it. ``memory``: (sequences, …), changed.

        ``first``: what the first layer handed to the others, None for the first layer itself. Returns what to add to
        the residual stream, and what to hand on.
        """
        ...


class ChannelMix(Protocol):
    """The other half, which looks at two tokens only."""

    def __call__(self, x: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Rows (rows, width) to add to the residual stream."""
        ...


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer norm over the width, or over each of ``groups`` parts of it."""

    weight: torch.Tensor
    bias: torch.Tensor
    epsilon: float = 1e-5
    groups: int = 1

    @classmethod
    def read(cls, weights: Weights, name: str, width: int, epsilon: float = 1e-5, groups: int = 1) -> Norm:
        """Take ``NAME.weight`` and ``NAME.bias``. Raises ModelFileError."""
        return cls(weights.exact(f"{name}.weight", width), weights.exact(f"{name}.bias", width), epsilon, groups)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The normalized rows."""
        if self.groups == 1:
            return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)
        return functional.group_norm(x, self.groups, self.weight, self.bias, self.epsilon)


def linear(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """``x`` times the transpose of ``matrix``, computed in the matrix's number type, given in float32."""
    return functional.linear(x.to(matrix.dtype), matrix).float()


@dataclass(frozen=True, slots=True)
class GatedChannelMix:
    """Versions 4 to 6: squared ReLU, gated by a receptance.

    ``key_mix`` and ``gate_mix``: how much of the token before is taken. Versions 4 and 5 store how much is not.
    """

    key_mix: torch.Tensor
    gate_mix: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    gate: torch.Tensor

    @classmethod
    def read(cls, weights: Weights, prefix: str, width: int) -> GatedChannelMix:
        """Take the weights of one layer. Raises ModelFileError."""
        if f"{prefix}time_maa_k" in weights:
            key_mix = weights.exact(f"{prefix}time_maa_k", width)
            gate_mix = weights.exact(f"{prefix}time_maa_r", width)
        else:
            key_mix = 1 - weights.exact(f"{prefix}time_mix_k", width)
            gate_mix = 1 - weights.exact(f"{prefix}time_mix_r", width)
        hidden = hidden_width(weights, prefix, width)
        return cls(
            key_mix,
            gate_mix,
            weights.matrix(f"{prefix}key.weight", hidden, width),
            weights.matrix(f"{prefix}value.weight", width, hidden),
            weights.matrix(f"{prefix}receptance.weight", width, width),
        )

    def __call__(self, x: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Rows to add to the residual stream."""
        key = linear(torch.lerp(x, before, self.key_mix), self.key).relu_().square_()
        gate = linear(torch.lerp(x, before, self.gate_mix), self.gate).sigmoid_()
        return gate.mul_(linear(key, self.value))


@dataclass(frozen=True, slots=True)
class PlainChannelMix:
    """Version 7: squared ReLU."""

    mix: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor

    @classmethod
    def read(cls, weights: Weights, prefix: str, width: int) -> PlainChannelMix:
        """Take the weights of one layer. Raises ModelFileError."""
        hidden = hidden_width(weights, prefix, width)
        return cls(
            weights.exact(f"{prefix}x_k", width),
            weights.matrix(f"{prefix}key.weight", hidden, width),
            weights.matrix(f"{prefix}value.weight", width, hidden),
        )

    def __call__(self, x: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Rows to add to the residual stream."""
        return linear(linear(torch.lerp(x, before, self.mix), self.key).relu_().square_(), self.value)


def hidden_width(weights: Weights, prefix: str, width: int) -> int:
    """The number of hidden units of a channel mix. Raises ModelFileError."""
    shape = weights.shape(f"{prefix}key.weight")
    if len(shape) != 2:
        raise weights.bad(f"{prefix}key.weight has the shape {shape} instead of (hidden, {width})")
    return shape[0]


def head_shape(weights: Weights, name: str, width: int) -> tuple[int, int]:
    """Heads and their size, from a tensor of shape (heads, size) that covers the width. Raises ModelFileError."""
    shape = weights.shape(name)
    if len(shape) != 2 or shape[0] * shape[1] != width:
        raise weights.bad(f"{name} has the shape {shape}, which does not divide {width} into heads")
    return shape[0], shape[1]
