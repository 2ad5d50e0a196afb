"""RWKV-6 ("Finch"): how tokens are mixed, and how fast the matrix of a head decays, depend on the text.

Peng et al. 2024, "Eagle and Finch", section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from local_llms.backends.rwkv.batch import Batch
from local_llms.backends.rwkv.layers import GatedChannelMix, Norm, head_shape, linear
from local_llms.backends.rwkv.recurrence import decayed
from local_llms.backends.rwkv.rwkv5 import STRONGEST_DECAY, matrix_states
from local_llms.backends.rwkv.states import StateShape
from local_llms.backends.rwkv.weights import Weights

_MIXED = "wkvrg"
"""Decay, key, value, receptance, gate, in the order in which their mixing is stored."""


@dataclass(frozen=True, slots=True)
class TimeMix6:
    """The recurrent half of a layer.

    ``common_mix`` and ``mixes`` (5, 1, width): how much of the token before is taken. ``mix_in`` (5 * rank, width) and
    ``mix_out`` (5, rank, width): what the text adds to ``mixes``. ``decay``, ``decay_in``, ``decay_out``: the same for
    the decay. ``bonus``: (heads, size).
    """

    common_mix: torch.Tensor
    mixes: torch.Tensor
    mix_in: torch.Tensor
    mix_out: torch.Tensor
    decay: torch.Tensor
    decay_in: torch.Tensor
    decay_out: torch.Tensor
    bonus: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    receptance: torch.Tensor
    gate: torch.Tensor
    output: torch.Tensor
    norm: Norm

    @classmethod
    def read(cls, weights: Weights, prefix: str, width: int, heads: int) -> TimeMix6:
        """Take the weights of one layer. Raises ModelFileError."""
        mix_rank = _second(weights, f"{prefix}time_maa_w1", width)
        decay_rank = _second(weights, f"{prefix}time_decay_w1", width)
        if mix_rank % len(_MIXED):
            raise weights.bad(f"{prefix}time_maa_w1 has {mix_rank} columns, no multiple of {len(_MIXED)}")
        return cls(
            common_mix=weights.exact(f"{prefix}time_maa_x", width),
            mixes=torch.stack([weights.exact(f"{prefix}time_maa_{which}", 1, width) for which in _MIXED]),
            mix_in=weights.matrix(f"{prefix}time_maa_w1", width, mix_rank).t().contiguous(),
            mix_out=weights.matrix(f"{prefix}time_maa_w2", len(_MIXED), mix_rank // len(_MIXED), width),
            decay=weights.exact(f"{prefix}time_decay", width),
            decay_in=weights.matrix(f"{prefix}time_decay_w1", width, decay_rank).t().contiguous(),
            decay_out=weights.matrix(f"{prefix}time_decay_w2", decay_rank, width).t().contiguous(),
            bonus=weights.exact(f"{prefix}time_faaaa", heads, width // heads),
            key=weights.square(f"{prefix}key", width),
            value=weights.square(f"{prefix}value", width),
            receptance=weights.square(f"{prefix}receptance", width),
            gate=weights.square(f"{prefix}gate", width),
            output=weights.square(f"{prefix}output", width),
            norm=Norm.read(weights, f"{prefix}ln_x", width, 64e-5, heads),
        )

    def __call__(
        self, x: torch.Tensor, before: torch.Tensor, memory: torch.Tensor, batch: Batch, first: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See ``TimeMix``. ``memory``: (sequences, heads, key size, value size)."""
        heads = (len(x), *self.bonus.shape)
        apart = before - x
        added = linear(x + apart * self.common_mix, self.mix_in).tanh_().view(len(x), len(_MIXED), -1).transpose(0, 1)
        mixes = torch.bmm(added.to(self.mix_out.dtype), self.mix_out).float() + self.mixes
        for_decay, for_key, for_value, for_receptance, for_gate = torch.addcmul(x, apart, mixes)
        decay = self.decay + linear(linear(for_decay, self.decay_in).tanh_(), self.decay_out)
        key, value = linear(for_key, self.key), linear(for_value, self.value)
        receptance = linear(for_receptance, self.receptance)
        read = decayed(
            memory,
            receptance.view(heads),
            key.view(heads),
            value.view(heads),
            decay.exp_().neg_().clamp_(min=STRONGEST_DECAY).view(heads),
            self.bonus,
            batch,
        )
        gate = functional.silu(linear(for_gate, self.gate))
        return linear(self.norm(read.flatten(1)) * gate, self.output), None


def read_layers(weights: Weights, layers: int, width: int) -> tuple[list[tuple[TimeMix6, GatedChannelMix]], StateShape]:
    """The layers, and what a sequence keeps. Raises ModelFileError."""
    heads, _ = head_shape(weights, "blocks.0.att.time_faaaa", width)
    found = [
        (
            TimeMix6.read(weights, f"blocks.{layer}.att.", width, heads),
            GatedChannelMix.read(weights, f"blocks.{layer}.ffn.", width),
        )
        for layer in range(layers)
    ]
    return found, matrix_states(weights, layers, width, heads)


def _second(weights: Weights, name: str, first: int) -> int:
    shape = weights.shape(name)
    if len(shape) != 2 or shape[0] != first:
        raise weights.bad(f"{name} has the shape {shape} instead of ({first}, rank)")
    return shape[1]
