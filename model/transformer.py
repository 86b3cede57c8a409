"""The encoder-decoder Transformer: tensors in, tensors out.

One decoder serves cached and uncached decoding; they differ in the `Memory` it reads.
Parameters keep the names given here; `families/` maps a checkpoint's names onto them.
"""

from collections.abc import Callable
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import Activation, ModelConfig
from model.positions import sinusoidal

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
}


def attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Mix `values` by how well each key matches each query.

    In matmul form: on a CPU it is two to three times as fast as
    `scaled_dot_product_attention` for single queries.

    Args:
        query: [batch, heads, queries, head_dim].
        keys, values: [batch, heads, keys, head_dim]; finite everywhere, unreadable columns too.
        bias: broadcastable to [batch, heads, queries, keys]; -inf where a key may not be read,
            at least one finite per query.

    Returns:
        [batch, heads, queries, head_dim].

    Source: Vaswani et al. (2017), eq. 1, arXiv:1706.03762.
    """
    weights = query @ keys.transpose(-1, -2) * query.shape[-1] ** -0.5 + bias
    return torch.matmul(weights.softmax(-1), values)


def readable_bias(lengths: Tensor, capacity: int, dtype: torch.dtype) -> Tensor:
    """Return [batch, 1, 1, capacity]: 0 for the first `lengths[row]` columns, -inf after them."""
    readable = torch.arange(capacity, device=lengths.device) < lengths[:, None]
    bias = torch.zeros(readable.shape, dtype=dtype, device=lengths.device)
    return bias.masked_fill_(~readable, float("-inf"))[:, None, None]


class Memory(Protocol):
    """What a decoder layer may look back at."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add this step's self-attention keys and values; returns all of them and their bias."""

    def source(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the cross-attention keys and values of each row's source, and their bias."""


class Attention(nn.Module):
    """Multi-head attention with separate projections."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def split(self, projected: Tensor) -> Tensor:
        """[batch, length, width] -> [batch, heads, length, head_dim], contiguous.

        A view would be multiplied by another kernel for one row than for several, and a row's bits
        would depend on its neighbours.
        """
        batch, length, width = projected.shape
        by_head = projected.view(batch, length, self.heads, width // self.heads)
        return by_head.transpose(1, 2).contiguous()

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Project [batch, length, width] to keys and values [batch, heads, length, head_dim]."""
        return self.split(self.key(memory)), self.split(self.value(memory))

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Attend from `hidden` [batch, queries, width] to projected keys and values."""
        mixed = attend(self.split(self.query(hidden)), keys, values, bias)
        merged: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return merged


class FeedForward(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.activation = _ACTIVATIONS[activation]

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        lowered: Tensor = self.down(self.activation(self.up(hidden)))
        return lowered


class Branch(nn.Module):
    """Where the norm of a residual branch stands: before the branch or after the sum."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self._pre = config.norm == "pre"

    def enter(self, hidden: Tensor) -> Tensor:
        """Return what the branch reads."""
        return self.norm(hidden) if self._pre else hidden

    def leave(self, hidden: Tensor, update: Tensor) -> Tensor:
        """Return the residual stream after the branch."""
        return hidden + update if self._pre else self.norm(hidden + update)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.encoder_heads)
        self.attention_branch = Branch(config)
        self.feed_forward = FeedForward(config.width, config.encoder_hidden, config.activation)
        self.feed_forward_branch = Branch(config)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """[batch, length, width] -> the same; `bias` as in `attend`."""
        entered = self.attention_branch.enter(hidden)
        update = self.attention(entered, *self.attention.keys_values(entered), bias)
        hidden = self.attention_branch.leave(hidden, update)
        update = self.feed_forward(self.feed_forward_branch.enter(hidden))
        return self.feed_forward_branch.leave(hidden, update)


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention, then feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.decoder_heads)
        self.attention_branch = Branch(config)
        self.cross = Attention(config.width, config.decoder_heads)
        self.cross_branch = Branch(config)
        self.feed_forward = FeedForward(config.width, config.decoder_hidden, config.activation)
        self.feed_forward_branch = Branch(config)

    def forward(self, hidden: Tensor, memory: Memory, layer: int) -> Tensor:
        """[rows, length, width] -> the same."""
        entered = self.attention_branch.enter(hidden)
        read = memory.extend(layer, *self.attention.keys_values(entered))
        hidden = self.attention_branch.leave(hidden, self.attention(entered, *read))
        update = self.cross(self.cross_branch.enter(hidden), *memory.source(layer))
        hidden = self.cross_branch.leave(hidden, update)
        update = self.feed_forward(self.feed_forward_branch.enter(hidden))
        return self.feed_forward_branch.leave(hidden, update)


class EncoderDecoder(nn.Module):
    """The whole network, with embeddings shared by encoder, decoder and output."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.encoder_norm = self._final_norm()
        self.decoder_norm = self._final_norm()
        self.output: nn.Module | None = None
        self.logits_bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.positions: Tensor
        self.register_buffer("positions", torch.empty(0), persistent=False)
        self.make_positions()

    def _final_norm(self) -> nn.Module:
        config = self.config
        return (
            nn.LayerNorm(config.width, config.norm_epsilon) if config.final_norm else nn.Identity()
        )

    def make_positions(self) -> None:
        """Compute the position embeddings, which no checkpoint stores, beside the weights."""
        weight = self.embedding.weight
        positions = sinusoidal(self.config.max_positions, self.config.width)
        self.positions = positions.to(weight.device, weight.dtype)

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(tokens) * self.config.embedding_scale
        return embedded + self.positions[positions]

    def encode(self, source: Tensor, lengths: Tensor) -> Tensor:
        """Encode a padded batch.

        Args:
            source: [batch, length] token ids, anything valid after each row's end.
            lengths: [batch] how many are real, at least 1.

        Returns:
            Latents [batch, length, width]; rows beyond `lengths` are meaningless but finite.
        """
        hidden = self._embed(source, torch.arange(source.shape[1], device=source.device))
        bias = readable_bias(lengths, source.shape[1], hidden.dtype)
        for layer in self.encoder:
            hidden = layer(hidden, bias)
        latents: Tensor = self.encoder_norm(hidden)
        return latents

    def source_keys_values(self, latents: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Project latents [batch, length, width] once for each decoder layer's cross-attention."""
        layers = (cast(DecoderLayer, layer) for layer in self.decoder)
        return [layer.cross.keys_values(latents) for layer in layers]

    def decode(self, tokens: Tensor, positions: Tensor, memory: Memory) -> Tensor:
        """Run the decoder over the newest tokens.

        Args:
            tokens, positions: [rows, length]; length is 1 in a cached step.
            memory: holds everything earlier, and the sources.

        Returns:
            Logits [rows, length, vocabulary], float32.
        """
        hidden = self._embed(tokens, positions)
        for index, layer in enumerate(self.decoder):
            hidden = layer(hidden, memory, index)
        hidden = self.decoder_norm(hidden)
        if self.output is not None:
            logits: Tensor = self.output(hidden)
            return logits + self.logits_bias
        return (F.linear(hidden, self.embedding.weight) + self.logits_bias).float()

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """Return the logits [batch, length, vocabulary] of a whole target at once, without a cache.

        This is the definition that cached decoding must agree with.

        Args:
            source, lengths: as in `encode`.
            target: [batch, length] decoder inputs, beginning with the start token.
        """
        latents = self.encode(source, lengths)
        bias = readable_bias(lengths, source.shape[1], latents.dtype)
        positions = torch.arange(target.shape[1], device=target.device).expand_as(target)
        return self.decode(target, positions, _Uncached(self.source_keys_values(latents), bias))


class _Uncached:
    """A whole target at once: each position reads itself and those before it."""

    def __init__(self, sources: list[tuple[Tensor, Tensor]], source_bias: Tensor) -> None:
        self._sources, self._source_bias = sources, source_bias

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        length = keys.shape[2]
        future = torch.full((length, length), float("-inf"), dtype=keys.dtype, device=keys.device)
        return keys, values, future.triu(1)

    def source(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        return *self._sources[layer], self._source_bias
