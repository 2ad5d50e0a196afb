"""ChatGLM-6B, the network: a prefix language model with two positions per token.

What is computed is that of ``modeling_chatglm.py`` in the checkpoints of THUDM/chatglm-6b (GLM: Du et al. 2022). Of the
prompt, all up to ``<sop>`` sees each other in both directions; from ``<sop>`` on a token sees what precedes it. The
first half of every head is turned by the position, which counts up to ``<sop>`` and then stays where the ``[gMASK]``
stands; the second half by the block position, which is 0 up to ``<sop>`` and then counts from 1.

The module is one of the transformers library's, so that it is loaded, checked and quantized like theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from local_llms.backends.transformers.parts import Attention, LayerShape, Placement

ALPHA = math.sqrt(2 * 28)
"""What the normed input weighs in a residual sum. The original never tells its layers how many there are: always 28."""

ROTARY_BASE = 10_000.0


class ChatGLMConfig(PretrainedConfig):  # type: ignore[misc]
    """Sizes of the network, named as in the checkpoints' ``config.json``."""

    model_type = "chatglm"

    def __init__(
        self,
        vocab_size: int = 130_528,
        hidden_size: int = 4096,
        inner_hidden_size: int = 16_384,
        num_attention_heads: int = 32,
        num_layers: int = 28,
        layernorm_epsilon: float = 1e-5,
        **others: Any,
    ) -> None:
        """The defaults are the published model's; ``others`` are the library's own."""
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.inner_hidden_size = inner_hidden_size
        self.num_attention_heads = num_attention_heads
        self.num_layers = num_layers
        self.layernorm_epsilon = layernorm_epsilon
        super().__init__(**others)


class SelfAttention(nn.Module):
    """Attention whose query, key and value lie side by side for each head, in one matrix."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, layer: int, x: torch.Tensor, turns: Turns, attention: Attention) -> torch.Tensor:
        """``x``: shape (tokens, hidden)."""
        query, key, value = self.query_key_value(x).view(len(x), self.heads, -1).chunk(3, dim=-1)
        scale = 1 / math.sqrt(query.shape[-1])
        seen = attention.attend(layer, turns.apply(query), turns.apply(key), value, scale)
        return cast(torch.Tensor, self.dense(seen.reshape(len(x), -1)))


class FeedForward(nn.Module):
    """Two matrices and a GELU."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.inner_hidden_size)
        self.dense_4h_to_h = nn.Linear(config.inner_hidden_size, config.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x``: shape (tokens, hidden)."""
        return cast(torch.Tensor, self.dense_4h_to_h(functional.gelu(self.dense_h_to_4h(x), approximate="tanh")))


class Block(nn.Module):
    """A layer. What goes past attention and feed-forward is the normed input, times ``ALPHA``."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = SelfAttention(config)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.mlp = FeedForward(config)

    def forward(self, layer: int, x: torch.Tensor, turns: Turns, attention: Attention) -> torch.Tensor:
        """``x``: shape (tokens, hidden)."""
        normed = self.input_layernorm(x)
        normed = self.post_attention_layernorm(normed * ALPHA + self.attention(layer, normed, turns, attention))
        return cast(torch.Tensor, normed * ALPHA + self.mlp(normed))


class Transformer(nn.Module):
    """Everything but the output matrix."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)


class ChatGLM(PreTrainedModel):  # type: ignore[misc]
    """The module. Its weights have the checkpoint's names."""

    config_class = ChatGLMConfig
    base_model_prefix = "transformer"
    _tied_weights_keys = {"lm_head.weight": "transformer.word_embeddings.weight"}  # noqa: RUF012 - the library's name

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.transformer = Transformer(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """For the library."""
        return self.transformer.word_embeddings

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, attention: Attention, rows: torch.Tensor
    ) -> torch.Tensor:
        """See ``Network.forward``; ``positions``: shape (tokens, 2), position and block position."""
        transformer = self.transformer
        x = transformer.word_embeddings(ids)
        turns = Turns(positions, self.config.hidden_size // self.config.num_attention_heads, x.dtype)
        for layer, block in enumerate(transformer.layers):
            x = block(layer, x, turns, attention)
        return cast(torch.Tensor, self.lm_head(transformer.final_layernorm(x[rows])))


class Turns:
    """The rotations of the tokens of one call."""

    def __init__(self, positions: torch.Tensor, head_size: int, dtype: torch.dtype) -> None:
        """``positions``: shape (tokens, 2)."""
        half = head_size // 2
        steps = torch.arange(0, half, 2, device=positions.device, dtype=torch.float32)
        # The checkpoints were trained with frequencies in half precision.
        frequencies = (1.0 / ROTARY_BASE ** (steps / half)).half().float()
        angles = positions[:, :, None].float() * frequencies
        angles = torch.cat((angles, angles), dim=-1).flatten(1)
        self._cosines = angles.cos().to(dtype)[:, None]
        self._sines = angles.sin().to(dtype)[:, None]

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Turn queries or keys, shape (tokens, heads, size): each half by its own position."""
        a, b, c, d = x.chunk(4, dim=-1)
        return x * self._cosines + torch.cat((-b, a, -d, c), dim=-1) * self._sines


class ChatGLMNetwork:
    """Implements ``Network``."""

    def __init__(self, module: nn.Module, config: ChatGLMConfig, *, start: int, masks: Sequence[int]) -> None:
        """``start``: the id of ``<sop>``. ``masks``: ids of what the position stays at, the first that occurs."""
        self.module = module
        size = config.hidden_size // config.num_attention_heads
        self.layers: Sequence[LayerShape] = [LayerShape(config.num_attention_heads, size, size)] * config.num_layers
        self.vocabulary_size = config.vocab_size
        self._start = start
        self._masks = masks

    def place(self, held: Sequence[int], new: Sequence[int]) -> Placement:
        """Where new tokens stand.

        With ``<sop>`` among them the whole sequence is computed anew, since what precedes it sees all of that. As long
        as there is none, a token sees what precedes it, as it would behind one.
        """
        ids = [*held, *new]
        start = ids.index(self._start) if self._start in ids else len(ids)
        first = 0 if len(held) <= start < len(ids) else len(held)
        index = np.arange(first, len(ids), dtype=np.int64)
        position = np.where(index < start, index, self._stop(ids, start))
        block = np.maximum(index - start + 1, 0)
        sees = np.where((index < start) & (start < len(ids)), start, index + 1)
        return Placement(first, np.stack((position, block), axis=1), sees)

    def settled(self, ids: Sequence[int]) -> bool:
        """Whether ``<sop>`` is there: see ``Network.settled``."""
        return self._start in ids

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, attention: Attention, rows: torch.Tensor
    ) -> torch.Tensor:
        """See ``Network.forward``."""
        return cast(torch.Tensor, self.module(ids, positions, attention, rows))

    def _stop(self, ids: Sequence[int], start: int) -> int:
        """Where the position stays from ``<sop>`` on: at a mask, or at the last token before it."""
        before = ids[:start]
        return next((before.index(mask) for mask in self._masks if mask in before), max(start - 1, 0))
