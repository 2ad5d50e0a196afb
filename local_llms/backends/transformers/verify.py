"""Checks, at loading, that an architecture gives packed what it gives by itself.

The library has some hundred architectures. Most of them compute attention through its interface, but a few carry more
from token to token than keys and values, or read more into a mask than it says. Wrong words would be the only sign. So
an architecture that the tests do not cover computes two short sequences both ways when it is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from local_llms.backends.transformers.attention import KeyValueStore, PackedAttention
from local_llms.backends.transformers.cells import CellIds
from local_llms.backends.transformers.native import ATTENTION, NativeNetwork, no_keys_and_values, replaces_attention
from local_llms.backends.transformers.parts import causal
from local_llms.backends.transformers.plan import Span
from local_llms.backends.transformers.quiet import quiet
from local_llms.errors import UnsupportedFeature

TESTED = frozenset({"gemma", "glm", "glm4", "gpt_neox", "gptj", "llama", "mistral", "phi3", "qwen2", "qwen3"})
"""Architectures that the tests compare with the library."""

_TOLERANCE = {torch.float32: 0.02, torch.float16: 0.1, torch.bfloat16: 0.3}
"""How far a logit may be off, as a part of the row's standard deviation."""

_SEQUENCES = ((3, 7, 1, 9, 4, 8), (5, 2, 6, 0))


_REFUSALS = (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError)
"""What the library raises where an architecture does not take what it is given."""


def drive(model: torch.nn.Module, architecture: str) -> NativeNetwork:
    """The network of a loaded model. Raises UnsupportedFeature where its packed logits are not its own."""
    try:
        network = NativeNetwork(model)
        if architecture in TESTED:
            return network
        sequences = [[token % network.vocabulary_size for token in sequence] for sequence in _SEQUENCES]
        found, expected = _packed(network, sequences), _alone(network, sequences)
    except _REFUSALS as error:
        raise _refusal(architecture) from error
    tolerance = _TOLERANCE.get(next(model.parameters()).dtype, 0.3)
    off = (found - expected).abs().amax(1) / expected.std(1)
    if not bool((off <= tolerance).all()):
        raise _refusal(architecture)
    return network


def check_kind(model_class: type[Any], settings: Any) -> None:
    """Refuse an architecture that keeps something else than keys and values, before any of its weights is read.

    Raises UnsupportedFeature. What can be computed with numbers only is left to ``drive``.
    """
    if settings.model_type in TESTED:
        return
    if getattr(model_class, "_is_stateful", False):
        raise no_keys_and_values()
    try:
        with quiet(), torch.device("meta"):
            model = model_class(settings)
            if replaces_attention(model_class):
                model.set_attn_implementation(ATTENTION)
            NativeNetwork(model)
    except _REFUSALS:
        return


def _packed(network: NativeNetwork, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """The last logits of each sequence, computed together in two calls."""
    device = next(network.module.parameters()).device
    dtype = next(network.module.parameters()).dtype
    store = KeyValueStore(32, network.layers, dtype if dtype.is_floating_point else torch.float32, device)
    logits = torch.empty(0)
    for begin, end in ((0, 2), (2, None)):
        spans: list[Span] = []
        ids: list[int] = []
        positions: list[NDArray[np.int64]] = []
        new: list[CellIds] = []
        start = 0
        for number, sequence in enumerate(sequences):
            tokens = sequence[begin:end]
            cells = np.arange(number * 16, number * 16 + begin + len(tokens))
            placement = causal(sequence[:begin], tokens)
            spans.append(Span(start, start + len(tokens), cells, placement.sees))
            ids.extend(tokens)
            positions.append(placement.positions)
            new.append(cells[begin:])
            start += len(tokens)
        attention = PackedAttention(store, spans, np.concatenate(new), None, lambda: False)
        logits = network.forward(
            torch.tensor(ids, device=device),
            torch.from_numpy(np.concatenate(positions)).to(device),
            attention,
            torch.tensor([span.stop - 1 for span in spans], device=device),
        )
    return logits.float()


@torch.inference_mode()
def _alone(network: NativeNetwork, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """The same by the library's own attention, one after the other, without a cache."""
    model: Any = network.module
    device = next(model.parameters()).device
    name = model.config._attn_implementation
    with quiet():
        if name == ATTENTION:
            model.set_attn_implementation("eager")
        try:
            rows = [
                model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, -1] for ids in sequences
            ]
        finally:
            if name == ATTENTION:
                model.set_attn_implementation(ATTENTION)
    return torch.stack(rows).float()


def _refusal(architecture: str) -> UnsupportedFeature:
    return UnsupportedFeature(
        f"The architecture {architecture!r} does not compute sequences side by side as this backend needs it. Look for "
        "the model as a GGUF file."
    )
