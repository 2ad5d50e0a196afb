"""P-tuning version 2: keys and values that were learned, which every sequence sees before its own.

The layout is that of the checkpoints which the ``ptuning`` folders of THUDM/ChatGLM-6B and ChatGLM2-6B write: weights
called ``transformer.prefix_encoder.…``, alone or among those of the whole model; ``embedding.weight`` has a row per
virtual token. Where there is a projection, ``trans.0`` and ``trans.2`` are matrices with a tanh between them. A row
that comes out holds, for each layer, the key and then the value of every head (``PrefixEncoder`` and ``get_prompt`` in
``modeling_chatglm.py``). Method: Liu et al. 2021, "P-Tuning v2".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from local_llms.backends.transformers.parts import Network, Prefix
from local_llms.backends.transformers.weights import Weights, has_weights, weight_files
from local_llms.errors import AdapterError, UnsupportedFeature
from local_llms.hub.adapter_facts import PREFIX

_EMBEDDING = "embedding.weight"
_PROJECTION = ("trans.0.weight", "trans.0.bias", "trans.2.weight", "trans.2.bias")


class PrefixAdapter:
    """Implements ``LoadedAdapter``."""

    def __init__(self, prefix: Prefix) -> None:
        self.prefix: Prefix | None = prefix

    @contextmanager
    def active(self, scale: float) -> Iterator[None]:
        """Nothing to switch: the attention sees the prefix. Raises UnsupportedFeature for a scale other than 1."""
        if scale != 1.0:
            raise UnsupportedFeature(
                f"adapter_scale={scale}: a P-tuning prefix is there or not, and has no strength. Leave the scale out."
            )
        yield


def read_prefix(path: Path, network: Network) -> PrefixAdapter | None:
    """The prefix in a checkpoint's folder; None where there is none.

    Raises AdapterError where it does not fit the network, ModelFileError where the folder is damaged.
    """
    if not path.is_dir() or not has_weights(path):
        return None
    tensors = {
        name.split(PREFIX, 1)[1]: torch.from_numpy(file.read(name)).float()
        for file in Weights(weight_files(path)).files
        for name in file.tensors
        if PREFIX in name
    }
    if not tensors:
        return None
    return PrefixAdapter(_shaped(_rows(tensors, path), network, path))


def _rows(tensors: Mapping[str, torch.Tensor], path: Path) -> torch.Tensor:
    """A row per virtual token, the projection done."""
    projected = any(name in tensors for name in _PROJECTION)
    wanted = (_EMBEDDING, *(_PROJECTION if projected else ()))
    if tensors.keys() != set(wanted):
        raise AdapterError(
            f"{path}: a P-tuning prefix has the weights {', '.join(wanted)}, and this one has "
            f"{', '.join(sorted(tensors))}. Fetch or train it again."
        )
    rows = tensors[_EMBEDDING]
    if not projected:
        return rows
    first, first_bias, second, second_bias = (tensors[name] for name in _PROJECTION)
    try:
        result: torch.Tensor = torch.tanh(rows @ first.T + first_bias) @ second.T + second_bias
    except RuntimeError as error:
        raise AdapterError(f"{path}: the matrices of the prefix's projection do not fit each other.") from error
    return result


def _shaped(rows: torch.Tensor, network: Network, path: Path) -> Prefix:
    """Keys and values per layer, in the number type and on the device of the network."""
    layers, shape = len(network.layers), network.layers[0]
    width = layers * 2 * shape.heads * shape.key_size
    if rows.dim() != 2 or not len(rows) or rows.shape[1] != width:
        raise AdapterError(
            f"{path}: the prefix has {rows.shape[-1]} numbers a token, and this model keeps {width} ({layers} layers, "
            f"key and value, {shape.heads} heads of {shape.key_size}). It was trained for another model."
        )
    like = next(parameter for parameter in network.module.parameters() if parameter.is_floating_point())
    both = rows.view(len(rows), layers, 2, shape.heads, shape.key_size).to(like.device, like.dtype)
    if not bool(torch.isfinite(both).all()):
        raise AdapterError(f"{path}: the prefix has numbers that are none. It is damaged: fetch it again.")
    return Prefix(
        [both[:, layer, 0].contiguous() for layer in range(layers)],
        [both[:, layer, 1].contiguous() for layer in range(layers)],
    )
