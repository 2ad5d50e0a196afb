"""RWKV-5 ("Eagle"): a matrix per head that decays at a fixed rate. 5.0 has no gate, 5.1 has one, both with one rate per
head; 5.2 has a rate per channel.

Peng et al. 2024, "Eagle and Finch", section 4.1. The group norm's epsilon is 64e-5 since training divides its input by
8 and takes 1e-5 (BlinkDL/RWKV-LM:RWKV-v5/src/model.py, head_size_divisor); rwkv.cpp takes 1e-5 without dividing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from local_llms.backends.rwkv.batch import Batch
from local_llms.backends.rwkv.layers import GatedChannelMix, Norm, linear
from local_llms.backends.rwkv.recurrence import decayed
from local_llms.backends.rwkv.states import StateShape
from local_llms.backends.rwkv.weights import Weights

STRONGEST_DECAY = -1e20
"""Logarithm of the strongest decay that is computed with."""


@dataclass(frozen=True, slots=True)
class TimeMix5:
    """The recurrent half of a layer. ``log_decay`` and ``bonus``: (heads, size). ``gate`` is None in 5.0."""

    key_mix: torch.Tensor
    value_mix: torch.Tensor
    receptance_mix: torch.Tensor
    gate_mix: torch.Tensor | None
    log_decay: torch.Tensor
    bonus: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    receptance: torch.Tensor
    gate: torch.Tensor | None
    output: torch.Tensor
    norm: Norm

    @classmethod
    def read(cls, weights: Weights, prefix: str, width: int, heads: int) -> TimeMix5:
        """Take the weights of one layer. Raises ModelFileError."""
        gated = f"{prefix}gate.weight" in weights
        return cls(
            key_mix=1 - weights.exact(f"{prefix}time_mix_k", width),
            value_mix=1 - weights.exact(f"{prefix}time_mix_v", width),
            receptance_mix=1 - weights.exact(f"{prefix}time_mix_r", width),
            gate_mix=1 - weights.exact(f"{prefix}time_mix_g", width) if gated else None,
            log_decay=_log_decay(weights, prefix, heads, width // heads),
            bonus=_bonus(weights, prefix, heads, width // heads),
            key=weights.square(f"{prefix}key", width),
            value=weights.square(f"{prefix}value", width),
            receptance=weights.square(f"{prefix}receptance", width),
            gate=weights.square(f"{prefix}gate", width) if gated else None,
            output=weights.square(f"{prefix}output", width),
            norm=Norm.read(weights, f"{prefix}ln_x", width, weights.norm_epsilon, heads),
        )

    def __call__(
        self, x: torch.Tensor, before: torch.Tensor, memory: torch.Tensor, batch: Batch, first: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See ``TimeMix``. ``memory``: (sequences, heads, key size, value size)."""
        heads = (len(x), *self.bonus.shape)
        key = linear(torch.lerp(x, before, self.key_mix), self.key).view(heads)
        value = linear(torch.lerp(x, before, self.value_mix), self.value).view(heads)
        receptance = linear(torch.lerp(x, before, self.receptance_mix), self.receptance).view(heads)
        read = decayed(memory, receptance, key, value, self.log_decay.expand(heads), self.bonus, batch)
        out = self.norm(read.flatten(1))
        if self.gate is not None and self.gate_mix is not None:
            out = out * functional.silu(linear(torch.lerp(x, before, self.gate_mix), self.gate))
        return linear(out, self.output), None


def read_layers(weights: Weights, layers: int, width: int) -> tuple[list[tuple[TimeMix5, GatedChannelMix]], StateShape]:
    """The layers, and what a sequence keeps. Raises ModelFileError."""
    shape = weights.shape("blocks.0.att.time_decay")
    if not shape or not shape[0] or width % shape[0]:
        raise weights.bad(f"blocks.0.att.time_decay has the shape {shape}, which does not divide {width} into heads")
    heads = shape[0]
    found = [
        (
            TimeMix5.read(weights, f"blocks.{layer}.att.", width, heads),
            GatedChannelMix.read(weights, f"blocks.{layer}.ffn.", width),
        )
        for layer in range(layers)
    ]
    return found, matrix_states(weights, layers, width, heads)


def matrix_states(weights: Weights, layers: int, width: int, heads: int) -> StateShape:
    """What a sequence keeps: a matrix per head. A checkpoint with tuned states begins with those instead of zeros."""
    size = width // heads
    initial = torch.zeros(layers, heads, size, size, device=weights.device)
    for layer in range(layers):
        name = f"blocks.{layer}.att.time_state"
        if name in weights:
            initial[layer] = weights.exact(name, heads, size, size).transpose(-1, -2)
    return StateShape(layers, width, (heads, size, size), initial)


def _log_decay(weights: Weights, prefix: str, heads: int, size: int) -> torch.Tensor:
    name = f"{prefix}time_decay"
    shape = (heads, size) if weights.shape(name) == (heads, size) else (heads, 1)
    stored = weights.exact(name, *shape)
    log_decay = torch.log(stored) if weights.decay_is_done else -torch.exp(stored)
    # A decay of zero counts as one that is zero within float32: minus infinity cannot be subtracted from itself.
    return log_decay.clamp(min=STRONGEST_DECAY).expand(heads, size)


def _bonus(weights: Weights, prefix: str, heads: int, size: int) -> torch.Tensor:
    name = f"{prefix}time_faaaa"
    if name in weights:
        shape = (heads, size) if weights.shape(name) == (heads, size) else (heads, 1)
        return weights.exact(name, *shape).expand(heads, size)
    stored = weights.exact(f"{prefix}time_first", heads, 1)
    return (stored if weights.decay_is_done else torch.exp(stored)).expand(heads, size)
