"""An adapter that becomes a part of the model when it is loaded, since it brings weights of its own.

Chinese-Alpaca's adapters have a larger vocabulary: embeddings and output weights for all tokens, and a tokenizer that
belongs to them (ymcui/Chinese-LLaMA-Alpaca: scripts/merge_llama_with_chinese_lora.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from local_llms.backends.transformers.lora import LowRank, find_module, low_ranks
from local_llms.backends.transformers.weights import EXTRA
from local_llms.errors import AdapterError
from local_llms.hub.peft import PeftAdapter, read_peft


def merge(path: Path, model: nn.Module) -> None:
    """Make a PEFT folder a part of a loaded model. Raises AdapterError where it does not fit it."""
    adapter = read_peft(path, extra=EXTRA)
    for name, stored in adapter.whole.items():
        _replace(adapter, model, name, stored)
    _check_vocabulary(path, model)
    for module, change in low_ranks(adapter, model).items():
        _add(module, change)


@torch.no_grad()
def _replace(adapter: PeftAdapter, model: nn.Module, name: str, stored: str) -> None:
    """Put a whole weight in the place of the model's; only a vocabulary may have another size.

    The output weights are often the embeddings themselves. Then both are replaced, unless the adapter has others for
    the outputs, before or after.
    """
    owner, _, kind = name.rpartition(".")
    module = find_module(adapter.path, model, owner)
    old = getattr(module, kind, None)
    if not isinstance(old, nn.Parameter):
        raise AdapterError(
            f"{adapter.path} was made for another model, or is of a kind that is not read: it has {name}."
        )
    new = torch.from_numpy(np.asarray(adapter.weights.read(stored), np.float32)).to(old.device, old.dtype)
    rows = kind == "weight" and _is_vocabulary(model, module)
    if not old.is_floating_point() or new.shape[1:] != old.shape[1:] or (len(new) != len(old) and not rows):
        raise AdapterError(
            f"{adapter.path} was made for another model: {name} has the shape {tuple(new.shape)} there and "
            f"{tuple(old.shape)} here."
        )
    ends = [end for end in (_embeddings(model), _head(model)) if end is not None and rows and end.weight is old]
    for each in (module, *ends):
        setattr(each, kind, nn.Parameter(new, requires_grad=False))
        _tell_rows(each, len(new))


def _tell_rows(module: nn.Module, rows: int) -> None:
    if isinstance(module, nn.Embedding):
        module.num_embeddings = rows
    elif isinstance(module, nn.Linear):
        module.out_features = rows


def _is_vocabulary(model: nn.Module, module: nn.Module) -> bool:
    return module is _embeddings(model) or module is _head(model)


def _embeddings(model: nn.Module) -> nn.Embedding | None:
    found = model.get_input_embeddings()  # type: ignore[operator]
    return found if isinstance(found, nn.Embedding) else None


def _head(model: nn.Module) -> nn.Linear | None:
    found = model.get_output_embeddings()  # type: ignore[operator]
    return found if isinstance(found, nn.Linear) else None


def _check_vocabulary(path: Path, model: nn.Module) -> None:
    """Refuse an adapter that enlarges one end of the model only."""
    embeddings, head = _embeddings(model), _head(model)
    if embeddings is not None and head is not None and len(embeddings.weight) != len(head.weight):
        raise AdapterError(
            f"{path} gives the model {len(embeddings.weight)} tokens to read and {len(head.weight)} to write. It is "
            "incomplete: fetch it again."
        )


@torch.no_grad()
def _add(module: nn.Module, change: LowRank) -> None:
    """Add a change to a weight for good; beside it where the weight is quantized."""
    weight = module.weight
    if isinstance(weight, nn.Parameter) and weight.is_floating_point():
        delta = change.delta()
        # Only a linear module's weight, and a table of embeddings, has a row for each output.
        added = delta if isinstance(module, nn.Linear | nn.Embedding) else delta.T
        module.weight = nn.Parameter(weight + added.to(weight.dtype), requires_grad=False)
    else:
        module.register_forward_hook(change.hook(1.0))
