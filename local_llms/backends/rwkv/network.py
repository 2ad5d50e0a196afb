"""A network of any version: embedding, layers of two halves each, and the head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from local_llms.backends.rwkv import rwkv4, rwkv5, rwkv6, rwkv7
from local_llms.backends.rwkv.batch import Batch
from local_llms.backends.rwkv.layers import ChannelMix, Norm, TimeMix
from local_llms.backends.rwkv.states import Block, StateShape
from local_llms.backends.rwkv.weights import Weights
from local_llms.hub.rwkv_facts import layers_of, version_of

_Halves = tuple[Sequence[tuple[TimeMix, ChannelMix]], StateShape]
_READERS: dict[str, Callable[[Weights, int, int], _Halves]] = {
    "7": rwkv7.read_layers,
    "6": rwkv6.read_layers,
    "5": rwkv5.read_layers,
    "4": rwkv4.read_layers,
}


@dataclass(frozen=True, slots=True)
class Layer:
    """Two halves, each with the norm in front of it."""

    time_norm: Norm
    time_mix: TimeMix
    channel_norm: Norm
    channel_mix: ChannelMix


@dataclass(frozen=True, slots=True)
class Network:
    """``version``: "4", "5", "5.1", "5.2", "6" or "7"."""

    version: str
    embedding: torch.Tensor
    first_norm: Norm
    layers: Sequence[Layer]
    last_norm: Norm
    head: torch.Tensor
    states: StateShape

    @classmethod
    def read(cls, weights: Weights) -> Network:
        """Build the network of a checkpoint. Raises ModelFileError where it is not a sound one of a known version."""
        shape = weights.shape("emb.weight")
        if len(shape) != 2 or 0 in shape:
            raise weights.bad(f"emb.weight has the shape {shape}")
        size, width = shape
        version = _version(weights)
        count = _layer_count(weights)
        first_norm = Norm.read(weights, "blocks.0.ln0", width)
        halves, states = _READERS[version[0]](weights, count, width)
        layers = [
            Layer(
                Norm.read(weights, f"blocks.{number}.ln1", width),
                time_mix,
                Norm.read(weights, f"blocks.{number}.ln2", width),
                channel_mix,
            )
            for number, (time_mix, channel_mix) in enumerate(halves)
        ]
        network = cls(
            version=version,
            embedding=weights.matrix("emb.weight", size, width),
            first_norm=first_norm,
            layers=layers,
            last_norm=Norm.read(weights, "ln_out", width),
            head=weights.matrix("head.weight", size, width),
            states=states,
        )
        weights.check_all_used(version)
        return network

    def compute(self, batch: Batch, states: Block, proceed: Callable[[], None]) -> torch.Tensor:
        """Take the tokens of a batch in. Returns the logits of ``batch.outputs``: (outputs, vocabulary), float32.

        ``states``, those of the batch's sequences in its order, are changed in place. ``proceed`` is called between
        layers; what it raises ends the computing and leaves states that are of no use.
        """
        x = self.first_norm(self.embedding[batch.tokens].float())
        first: torch.Tensor | None = None
        for number, layer in enumerate(self.layers):
            proceed()
            shift, memory = states.shift[number], states.memory[number]
            inner = layer.time_norm(x)
            out, first = layer.time_mix(inner, batch.shifted(shift[:, 0], inner), memory, batch, first)
            shift[:, 0] = batch.last(inner)
            x = x + out
            inner = layer.channel_norm(x)
            out = layer.channel_mix(inner, batch.shifted(shift[:, 1], inner))
            shift[:, 1] = batch.last(inner)
            x = x + out
        wanted = self.last_norm(x[batch.outputs])
        return functional.linear(wanted.to(self.head.dtype), self.head).float()


def _version(weights: Weights) -> str:
    """The version that the names and shapes of the weights tell. Raises ModelFileError where there is none."""
    found = version_of({name: tuple(tensor.shape) for name, tensor in weights.tensors.items()})
    if found is None:
        raise weights.bad("no version of RWKV has such weights", "Look for the original .pth of the model.")
    return found


def _layer_count(weights: Weights) -> int:
    numbers = layers_of(weights.tensors)
    if numbers != set(range(len(numbers))) or not numbers:
        raise weights.bad(f"of {max(numbers, default=0) + 1} layers only {len(numbers)} are there")
    return len(numbers)
