"""LoRA adapters beside a loaded network: for a call, their modules add ``strength * B A x`` to what they give.

Nothing of the base is touched, so that it is the same, to the bit, whenever no adapter is active; and switching costs
nothing but setting hooks (Hu et al. 2021: LoRA).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from local_llms.backends.transformers.parts import Network
from local_llms.backends.transformers.weights import EXTRA
from local_llms.errors import AdapterError
from local_llms.hub.peft import PeftAdapter, read_peft


@dataclass(frozen=True, slots=True)
class LowRank:
    """The change of one module: shape (rank, in) and (out, rank), of an embedding (rank, tokens) and (size, rank)."""

    a: torch.Tensor
    b: torch.Tensor
    strength: float
    embedding: bool

    def hook(self, scale: float) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor]:
        """What to hang on the module."""
        factor = self.strength * scale

        def add(_module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            if self.embedding:
                low = nn.functional.embedding(inputs[0], self.a.T)
            else:
                low = nn.functional.linear(inputs[0].to(self.a.dtype), self.a)
            return output + nn.functional.linear(low, self.b).mul_(factor).to(output.dtype)

        return add

    def delta(self) -> torch.Tensor:
        """What it adds to the weight of the module, in the order of a linear one's: (out, in)."""
        change = self.b @ self.a * self.strength
        return change.T if self.embedding else change


class LoraAdapter:
    """Implements ``LoadedAdapter``."""

    prefix = None

    def __init__(self, parts: Mapping[nn.Module, LowRank]) -> None:
        self._parts = parts

    @contextmanager
    def active(self, scale: float) -> Iterator[None]:
        """Add it inside the block; scale 0 adds nothing."""
        with ExitStack() as hooks:
            if scale != 0:
                for module, part in self._parts.items():
                    hooks.callback(module.register_forward_hook(part.hook(scale)).remove)
            yield


Targets = Callable[[str], Sequence[tuple[str, slice]]]
"""A module's name as an adapter has it → the modules that this network has for it, each with its rows of B."""


def same_names(name: str) -> Sequence[tuple[str, slice]]:
    """The targets in a network whose modules have the names that its adapters know."""
    return ((name, slice(None)),)


def read_lora(path: Path, network: Network, targets: Targets = same_names) -> LoraAdapter:
    """A PEFT folder for a network that is loaded. Raises AdapterError, MissingDependency and DownloadError."""
    adapter = read_peft(path, extra=EXTRA)
    if adapter.whole:
        name = next(iter(adapter.whole))
        raise AdapterError(
            f"{path} replaces whole weights of the model ({name}), such as those of a larger vocabulary. It is no "
            "change for single requests: give it when the model is loaded, load_model(…, adapter=…)."
        )
    return LoraAdapter(low_ranks(adapter, network.module, targets))


def low_ranks(adapter: PeftAdapter, model: nn.Module, targets: Targets = same_names) -> dict[nn.Module, LowRank]:
    """The changes of an adapter by module. Raises AdapterError where one does not fit."""
    first = next(model.parameters())
    dtype = first.dtype if first.is_floating_point() else torch.float32
    found: dict[nn.Module, LowRank] = {}
    for name, entry in adapter.modules.items():
        a, whole = (_tensor(adapter, stored).to(first.device, dtype) for stored in (entry.a, entry.b))
        if not bool(torch.isfinite(a).all() and torch.isfinite(whole).all()):
            raise AdapterError(f"{adapter.path} is damaged: {name} has numbers that are not finite. Fetch it again.")
        for target, rows in targets(name):
            module, b = find_module(adapter.path, model, target), whole[rows]
            # A column for each input and a row for each output; of an embedding's A, a column for each token.
            sizes = (b.shape[0], a.shape[1])
            expected = _sizes(module)
            if isinstance(module, nn.Embedding) is not entry.embedding or sizes != expected:
                raise AdapterError(
                    f"{adapter.path} was made for another model: {name} is of size {sizes} there and {expected} here"
                    f"{_base(adapter)}."
                )
            found[module] = LowRank(a, b, entry.strength, entry.embedding)
    return found


def find_module(path: Path, model: nn.Module, name: str) -> nn.Module:
    """The module of that name. Raises AdapterError where the model has none."""
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise AdapterError(f"{path} was made for another model: this one has no {name}.") from None


def _tensor(adapter: PeftAdapter, stored: str) -> torch.Tensor:
    return torch.from_numpy(np.asarray(adapter.weights.read(stored), np.float32))


def _sizes(module: nn.Module) -> tuple[int, int] | None:
    """(outputs, inputs) of a linear module, (size, tokens) of an embedding; None for a module of another kind."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, nn.Embedding):
        return module.embedding_dim, module.num_embeddings
    weight = getattr(module, "weight", None)
    # GPT-2 keeps its linear weights the other way round.
    if type(module).__name__ == "Conv1D" and isinstance(weight, torch.Tensor):
        return int(weight.shape[1]), int(weight.shape[0])
    return None


def _base(adapter: PeftAdapter) -> str:
    return f" (it was trained on {adapter.base})" if adapter.base else ""
