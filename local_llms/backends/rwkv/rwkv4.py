"""RWKV-4 ("Dove", "Raven"): a weighted mean of values per channel, kept as numerator, denominator and largest exponent.

Peng et al. 2023, "RWKV: Reinventing RNNs for the Transformer Era", section 3 and appendix D.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from local_llms.backends.rwkv.batch import Batch
from local_llms.backends.rwkv.layers import GatedChannelMix, linear
from local_llms.backends.rwkv.states import StateShape
from local_llms.backends.rwkv.weights import Weights

LONG_AGO = -1e30
"""The largest exponent of a sequence that has read nothing."""


@dataclass(frozen=True, slots=True)
class TimeMix4:
    """The recurrent half of a layer.

    The mixes: how much of the token before is taken. ``decay`` is added to the exponent at each token, ``bonus`` for
    the token itself.
    """

    key_mix: torch.Tensor
    value_mix: torch.Tensor
    gate_mix: torch.Tensor
    decay: torch.Tensor
    bonus: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    gate: torch.Tensor
    output: torch.Tensor

    @classmethod
    def read(cls, weights: Weights, prefix: str, width: int) -> TimeMix4:
        """Take the weights of one layer. Raises ModelFileError."""
        decay = weights.exact(f"{prefix}time_decay", width)
        return cls(
            key_mix=1 - weights.exact(f"{prefix}time_mix_k", width),
            value_mix=1 - weights.exact(f"{prefix}time_mix_v", width),
            gate_mix=1 - weights.exact(f"{prefix}time_mix_r", width),
            decay=decay if weights.decay_is_done else -torch.exp(decay),
            bonus=weights.exact(f"{prefix}time_first", width),
            key=weights.square(f"{prefix}key", width),
            value=weights.square(f"{prefix}value", width),
            gate=weights.square(f"{prefix}receptance", width),
            output=weights.square(f"{prefix}output", width),
        )

    def __call__(
        self, x: torch.Tensor, before: torch.Tensor, memory: torch.Tensor, batch: Batch, first: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See ``TimeMix``. ``memory``: (sequences, 3, width)."""
        key = linear(torch.lerp(x, before, self.key_mix), self.key)
        value = linear(torch.lerp(x, before, self.value_mix), self.value)
        gate = linear(torch.lerp(x, before, self.gate_mix), self.gate).sigmoid_()
        return linear(gate.mul_(self._means(key, value, memory, batch)), self.output), None

    def _means(self, key: torch.Tensor, value: torch.Tensor, memory: torch.Tensor, batch: Batch) -> torch.Tensor:
        result = torch.empty_like(value)
        above, below, largest = memory.unbind(1)
        for stretch in batch.stretches:
            for time in range(stretch.times):
                start = stretch.first + time * stretch.count
                rows, some = slice(start, start + stretch.count), slice(stretch.count)
                k, v = key[rows], value[rows]
                result[rows] = self._with(self.bonus + k, v, above[some], below[some], largest[some])
                self._add(k, v, above[some], below[some], largest[some])
        return result

    @staticmethod
    def _with(
        exponent: torch.Tensor, v: torch.Tensor, above: torch.Tensor, below: torch.Tensor, largest: torch.Tensor
    ) -> torch.Tensor:
        """The mean with the present token in it."""
        top = torch.maximum(largest, exponent)
        past, present = (largest - top).exp_(), (exponent - top).exp_()
        return (past * above).addcmul_(present, v).div_((past * below).add_(present))

    def _add(
        self, k: torch.Tensor, v: torch.Tensor, above: torch.Tensor, below: torch.Tensor, largest: torch.Tensor
    ) -> None:
        """Let the past decay and take the token in."""
        decayed = largest + self.decay
        top = torch.maximum(decayed, k)
        past, present = (decayed - top).exp_(), (k - top).exp_()
        above.mul_(past).addcmul_(present, v)
        below.mul_(past).add_(present)
        largest.copy_(top)


def read_layers(weights: Weights, layers: int, width: int) -> tuple[list[tuple[TimeMix4, GatedChannelMix]], StateShape]:
    """The layers, and what a sequence keeps. Raises ModelFileError."""
    found = [
        (
            TimeMix4.read(weights, f"blocks.{layer}.att.", width),
            GatedChannelMix.read(weights, f"blocks.{layer}.ffn.", width),
        )
        for layer in range(layers)
    ]
    initial = torch.zeros(layers, 3, width, device=weights.device)
    initial[:, 2] = LONG_AGO
    return found, StateShape(layers, width, (3, width), initial)
