"""The weights of a checkpoint, taken by name, each checked for its shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from local_llms.errors import ModelFileError
from local_llms.hub.bounded import AGAIN


@dataclass(slots=True)
class Weights:
    """Tensors in the layout of RWKV's own training program (BlinkDL/RWKV-LM), under its names.

    - ``decay_is_done``: the decay of versions 4 and 5, and the bonus of 5.0 and 5.1, are stored as they are used,
      instead of as their logarithms: so rwkv.cpp does it.
    - ``norm_epsilon``: of the group norm after the recurrence of version 5. It was trained with 64e-5, which the rwkv
      package uses too; rwkv.cpp computes with 1e-5.
    - ``dtype``: number type of matrices that are multiplied with. Everything else is computed in float32.
    """

    path: Path
    tensors: Mapping[str, torch.Tensor]
    device: torch.device
    dtype: torch.dtype
    decay_is_done: bool = False
    norm_epsilon: float = 64e-5
    _used: set[str] = field(default_factory=set)
    _sizes: dict[str, int] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    @property
    def taken(self) -> int:
        """Bytes of what was taken so far, in the number types that it was taken in."""
        return sum(self._sizes.values())

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor. Raises ModelFileError where there is none."""
        return tuple(self._find(name).shape)

    def matrix(self, name: str, *shape: int) -> torch.Tensor:
        """A matrix that is multiplied with, in ``dtype``. Raises ModelFileError where it has another shape."""
        return self._counted(name, self._take(name, shape).to(self.device, self.dtype))

    def exact(self, name: str, *shape: int) -> torch.Tensor:
        """Any other tensor, in float32, in that shape. Raises ModelFileError where its shape is another one."""
        return self._counted(name, self._take(name, shape).to(self.device, torch.float32))

    def square(self, name: str, width: int) -> torch.Tensor:
        """The matrix of ``NAME.weight``, as many rows as columns. Raises ModelFileError."""
        return self.matrix(f"{name}.weight", width, width)

    def skip(self, name: str) -> None:
        """A tensor that is in the file and not computed with."""
        self._used.add(name)

    def check_all_used(self, version: str) -> None:
        """Raise ModelFileError where something is left: a model that has more than its version would answer wrongly."""
        left = sorted(set(self.tensors) - self._used)
        if left:
            raise self.bad(
                f"it has {len(left)} weights that RWKV-{version} does not have, {left[0]} first",
                "It is a variant that this package does not know; look for a plain model.",
            )

    def bad(self, what: str, advice: str = AGAIN) -> ModelFileError:
        """The error for these weights."""
        return ModelFileError(f"{self.path} does not hold sound RWKV weights: {what}. {advice}")

    def _counted(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        self._sizes[name] = tensor.numel() * tensor.element_size()
        return tensor.contiguous()

    def _find(self, name: str) -> torch.Tensor:
        tensor = self.tensors.get(name)
        if tensor is None:
            raise self.bad(f"{name} is missing")
        return tensor

    def _take(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        tensor = self._find(name)
        if [length for length in tensor.shape if length != 1] != [length for length in shape if length != 1]:
            raise self.bad(f"{name} has the shape {tuple(tensor.shape)} instead of {shape}")
        if not tensor.is_floating_point():
            raise self.bad(f"{name} holds numbers of the type {tensor.dtype}")
        self._used.add(name)
        return tensor.reshape(shape)
