"""The encoder-decoder Transformer: tensors in, tensors out.

One decoder serves cached and uncached decoding; they differ in the `Memory` it reads.
Parameters keep the names given here; `families/` maps a checkpoint's names onto them.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.layers import Attention, Branch, FeedForward, norm
from model.positions import PositionTable, RelativeBias

ROW_STEP = 8  # CPU kernels give a row the same bits at every multiple of it, not at other counts
_FLOAT16_MAX = torch.finfo(torch.float16).max - 1000


def readable_bias(lengths: Tensor, capacity: int, dtype: torch.dtype) -> Tensor:
    """Return [batch, 1, 1, capacity]: 0 for the first `lengths[row]` columns, -inf after them."""
    readable = torch.arange(capacity, device=lengths.device) < lengths[:, None]
    bias = torch.zeros(readable.shape, dtype=dtype, device=lengths.device)
    return bias.masked_fill_(~readable, float("-inf"))[:, None, None]


class Memory(Protocol):
    """What a decoder layer may look back at."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add this step's self-attention keys and values; returns all of them and their bias.

        Padding rows at the end of a step are neither added nor returned.
        """

    def source(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the cross-attention keys and values of each row's source, and their bias."""


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config, config.encoder_heads, config.encoder_head_dim)
        self.attention_branch = Branch(config)
        self.feed_forward = FeedForward(config, config.encoder_hidden)
        self.feed_forward_branch = Branch(config)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """[batch, length, width] -> the same; `bias` as in `attend`."""
        entered = self.attention_branch.enter(hidden)
        update = self.attention(*self.attention.queries_keys_values(entered), bias)
        hidden = self.attention_branch.leave(hidden, update)
        update = self.feed_forward(self.feed_forward_branch.enter(hidden))
        hidden = self.feed_forward_branch.leave(hidden, update)
        # The reference saturates here too, instead of overflowing.
        return hidden.clamp(-_FLOAT16_MAX, _FLOAT16_MAX) if hidden.dtype == torch.half else hidden


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention, then feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config, config.decoder_heads, config.head_dim)
        self.attention_branch = Branch(config)
        self.cross = Attention(config, config.decoder_heads, config.head_dim)
        self.cross_branch = Branch(config)
        self.feed_forward = FeedForward(config, config.decoder_hidden)
        self.feed_forward_branch = Branch(config)

    def forward(
        self,
        hidden: Tensor,
        memory: Memory,
        layer: int,
        relative: Callable[[int], Tensor] | None = None,
        attention: list[Tensor] | None = None,
    ) -> Tensor:
        """[rows, length, width] -> the same.

        Args:
            relative: number of keys -> bias of self-attention by their distance.
            attention: receives the weights of cross-attention [rows, heads, length, source].
        """
        entered = self.attention_branch.enter(hidden)
        query, keys, values = self.attention.queries_keys_values(entered)
        keys, values, bias = memory.extend(layer, keys, values)
        if relative is not None:
            bias = bias + relative(keys.shape[2])[: len(keys)]
        update = self.attention(query, keys, values, bias)
        hidden = self.attention_branch.leave(hidden, update)
        query = self.cross.split(self.cross.query(self.cross_branch.enter(hidden)))
        update = self.cross(query, *memory.source(layer), attention)
        hidden = self.cross_branch.leave(hidden, update)
        update = self.feed_forward(self.feed_forward_branch.enter(hidden))
        return self.feed_forward_branch.leave(hidden, update)


class EncoderDecoder(nn.Module):
    """The whole network.

    Attributes:
        row_step: of what `decode` reads the rows must be a multiple, so that no row's bits depend
            on how many there are.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.row_step = ROW_STEP
        self.embedding = nn.Embedding(config.vocabulary, config.width)  # of the target
        self.source_embedding = (
            self.embedding
            if config.shares_embedding
            else nn.Embedding(config.source_vocabulary, config.width)
        )
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.encoder_embedding_norm = norm(config) if config.has_embedding_norm else nn.Identity()
        self.decoder_embedding_norm = norm(config) if config.has_embedding_norm else nn.Identity()
        self.encoder_norm = norm(config) if config.has_final_norm else nn.Identity()
        self.decoder_norm = norm(config) if config.has_final_norm else nn.Identity()
        self.output = nn.Linear(config.width, config.vocabulary, bias=False)
        if config.ties_output:
            self.output.weight = self.embedding.weight
        bias = nn.Parameter(torch.zeros(config.vocabulary)) if config.has_logits_bias else None
        self.logits_bias: nn.Parameter | None
        self.register_parameter("logits_bias", bias)
        self.encoder_positions: PositionTable | None = None
        self.decoder_positions: PositionTable | None = None
        self.encoder_relative: RelativeBias | None = None
        self.decoder_relative: RelativeBias | None = None
        self._add_positions()

    def _add_positions(self) -> None:
        config = self.config
        if config.positions == "relative":
            count, limit = config.relative_buckets, config.relative_limit
            heads = config.encoder_heads, config.decoder_heads
            self.encoder_relative = RelativeBias(count, limit, heads[0], is_causal=False)
            self.decoder_relative = RelativeBias(count, limit, heads[1], is_causal=True)
        else:
            self.encoder_positions = self.decoder_positions = PositionTable(config)
        if config.positions == "learned":
            self.decoder_positions = PositionTable(config)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.decoder.parameters()).device

    def encode(self, source: Tensor, lengths: Tensor) -> Tensor:
        """Encode a padded batch.

        Args:
            source: [batch, length] token ids, anything valid after each row's end.
            lengths: [batch] how many are real, at least 1.

        Returns:
            Latents [batch, length, width]; rows beyond `lengths` are meaningless but finite.
        """
        hidden = self.source_embedding(source) * self.config.embedding_scale
        if self.encoder_positions is not None:
            hidden = hidden + self.encoder_positions(source, self._count(source))
        hidden = self.encoder_embedding_norm(hidden)
        bias = readable_bias(lengths, source.shape[1], hidden.dtype)
        if self.encoder_relative is not None:
            positions = torch.arange(source.shape[1], device=source.device)[None]
            bias = bias + self.encoder_relative(positions, source.shape[1])
        for layer in self.encoder:
            hidden = layer(hidden, bias)
        latents: Tensor = self.encoder_norm(hidden)
        return latents

    def _count(self, source: Tensor) -> Tensor:
        """Return the positions of a source's tokens [batch, length]."""
        if self.config.positions == "tensor2tensor":  # padding tokens within it are not counted
            return (source != self.config.pad).long().cumsum(1) - 1
        return torch.arange(source.shape[1], device=source.device).expand_as(source)

    def source_keys_values(self, latents: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Project latents [batch, length, width] once for each decoder layer's cross-attention."""
        layers = (cast(DecoderLayer, layer) for layer in self.decoder)
        return [layer.cross.keys_values(latents) for layer in layers]

    def decode(
        self,
        tokens: Tensor,
        positions: Tensor,
        memory: Memory,
        attention: list[Tensor] | None = None,
    ) -> Tensor:
        """Run the decoder over the newest tokens.

        Args:
            tokens, positions: [rows, length]; length is 1 in a cached step.
            memory: holds everything earlier, and the sources.
            attention: receives the weights of each layer's cross-attention,
                [rows, heads, length, source].

        Returns:
            Logits [rows, length, vocabulary], float32.
        """
        hidden = self.embedding(tokens) * self.config.embedding_scale
        if self.decoder_positions is not None:
            hidden = hidden + self.decoder_positions(tokens, positions)
        hidden = self.decoder_embedding_norm(hidden)
        relative = None
        if self.decoder_relative is not None:  # equal in every layer
            relative = cache(partial(self.decoder_relative, positions))
        for index, layer in enumerate(self.decoder):
            hidden = layer(hidden, memory, index, relative, attention)
        hidden = self.decoder_norm(hidden)
        if self.config.output_scale != 1:
            hidden = hidden * self.config.output_scale
        logits: Tensor = self.output(hidden)
        if self.logits_bias is not None:
            logits = logits + self.logits_bias
        return logits.float()

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """Return the logits [batch, length, vocabulary] of a whole target at once, without a cache.

        This is the definition that cached decoding must agree with.

        Args:
            source, lengths: as in `encode`.
            target: [batch, length] decoder inputs, beginning with the start token.
        """
        positions = torch.arange(target.shape[1], device=target.device).expand_as(target)
        return self.decode(target, positions, self.memory(self.encode(source, lengths), lengths))

    def memory(self, latents: Tensor, lengths: Tensor) -> Memory:
        """Return what `decode` reads of encoded sources when it sees whole targets at once.

        Args:
            latents, lengths: what `encode` returned, and what it was given.
        """
        bias = readable_bias(lengths, latents.shape[1], latents.dtype)
        return _Uncached(self.source_keys_values(latents), bias)


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
