"""Networks that the transformers library builds itself, driven packed.

The library calls the attention of almost all its architectures by a name in their configuration. Ours is registered
under a name of its own and gets the call's ``Attention`` as an argument of ``forward``; the library then makes no mask
and keeps no cache. Architectures that compute attention themselves get all cells of a call from a cache object, with a
mask that tells which of them belong to whom.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any, Protocol, cast

import torch

from local_llms.backends.transformers.parts import Attention, LayerShape, Placement, causal
from local_llms.errors import UnsupportedFeature

ATTENTION = "local_llms"
"""The name under which the library knows this attention."""


class _CausalModel(Protocol):
    """What is used of the library's models."""

    config: Any

    def __call__(self, **arguments: Any) -> Any: ...


class NativeNetwork:
    """Implements ``Network`` over a causal model of the library, loaded with ``attn_implementation=ATTENTION``."""

    def __init__(self, model: torch.nn.Module) -> None:
        """Finds out, with one token, what the layers keep, and whether the weights give numbers at all.

        Raises UnsupportedFeature where they keep something else than keys and values.
        """
        self.module = model
        self._model = cast(_CausalModel, model)
        self._replaces = replaces_attention(type(model))
        self._cache_name = _cache_name(model)
        self._device = next(model.parameters()).device
        probe = _Probe()
        logits = self._forward(
            torch.zeros(1, dtype=torch.long, device=self._device),
            torch.zeros(1, dtype=torch.long, device=self._device),
            probe,
            torch.zeros(1, dtype=torch.long, device=self._device),
        )
        self.layers: Sequence[LayerShape] = probe.layers()
        self.vocabulary_size = int(logits.shape[-1])
        # Without weights there are no numbers yet.
        self.gives_numbers = logits.is_meta or bool(torch.isfinite(logits).any())

    def place(self, held: Sequence[int], new: Sequence[int]) -> Placement:
        """See ``Network.place``."""
        return causal(held, new)

    def settled(self, ids: Sequence[int]) -> bool:
        """See ``Network.settled``."""
        return True

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, attention: Attention, rows: torch.Tensor
    ) -> torch.Tensor:
        """See ``Network.forward``."""
        return self._forward(ids, positions, attention, rows)

    @torch.inference_mode()
    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, attention: Attention, rows: torch.Tensor
    ) -> torch.Tensor:
        arguments: dict[str, Any] = {"input_ids": ids[None], "position_ids": positions[None], "logits_to_keep": rows}
        if self._replaces:
            arguments.update(use_cache=False, packed=attention)
        else:
            arguments.update(_gathered(self._cache_name, attention, next(self.module.parameters()).dtype))
        logits: torch.Tensor = self._model(**arguments).logits[0]
        return logits


def replaces_attention(model_class: type[Any]) -> bool:
    """Whether the library lets an architecture's attention be replaced by name."""
    return bool(getattr(model_class, "_supports_attention_backend", False))


def register() -> None:
    """Tell the library about this attention. Doing it again changes nothing."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, packed_attention)


def no_keys_and_values() -> UnsupportedFeature:
    """The error for an architecture that keeps a state."""
    return UnsupportedFeature(
        "This architecture keeps something else than keys and values of every layer, which this backend cannot drive. "
        "Look for the model as a GGUF file."
    )


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed: Attention,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    **_others: Any,
) -> tuple[torch.Tensor, None]:
    """The library's interface of an attention function: (1, heads, tokens, size) in, (1, tokens, heads, size) out.

    The other arguments tell nothing that is needed here. Raises UnsupportedFeature for what is not computed.
    """
    if s_aux is not None or position_bias is not None:
        raise UnsupportedFeature(
            "This architecture's attention has sinks or biases, which this backend does not compute."
        )
    found = packed.attend(
        cast(int, module.layer_idx),
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=sliding_window,
        softcap=softcap,
    )
    return found[None], None


def _gathered(cache_name: str, attention: Attention, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments for a model that computes attention itself and takes its cache as ``cache_name``."""
    from transformers import Cache

    class Gathered(Cache):  # type: ignore[misc]
        """Gives every layer the cells of the call."""

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            keys, values = attention.exchange(layer_idx, key_states[0].transpose(0, 1), value_states[0].transpose(0, 1))
            return keys.transpose(0, 1)[None], values.transpose(0, 1)[None]

    visible = attention.visible()
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    mask.masked_fill_(~visible, torch.finfo(dtype).min)
    return {cache_name: Gathered(layers=[]), "use_cache": True, "attention_mask": mask[None, None]}


def _cache_name(model: torch.nn.Module) -> str:
    """The argument that takes a cache: "past_key_values" is being renamed, one architecture after the other."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


class _Probe:
    """Stands for the attention of one token and notes what each layer would keep."""

    def __init__(self) -> None:
        self._found: dict[int, LayerShape] = {}

    def layers(self) -> list[LayerShape]:
        """One shape per layer. Raises UnsupportedFeature where the model keeps no keys and values, or not in order."""
        if not self._found or sorted(self._found) != list(range(len(self._found))):
            raise no_keys_and_values()
        return [self._found[layer] for layer in range(len(self._found))]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        *,
        window: int | None = None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        """A single token sees itself only: its value, for all heads that share it."""
        self.exchange(layer, key, value)
        return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)

    def exchange(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Attention.exchange``."""
        self._found[layer] = LayerShape(key.shape[1], key.shape[2], value.shape[2])
        return key, value

    def visible(self) -> torch.Tensor:
        """See ``Attention.visible``."""
        return torch.ones(1, 1, dtype=torch.bool)
