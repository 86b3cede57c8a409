"""A network in eight bits, run by the compiled library: whole encodings, whole decode steps.

It computes what `EncoderDecoder` computes with the layers of `backends.cpu`, with keys and values
in half precision: that network is its specification, and its fallback.
"""

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.config import Activation
from model.layers import Attention, FeedForward, RMSNorm
from model.native.library import Ask, Found, Shape, library
from model.positions import RelativeBias
from model.transformer import DecoderLayer, EncoderDecoder, EncoderLayer

_ACTIVATIONS: tuple[Activation, ...] = ("relu", "gelu", "gelu_new", "silu")
_PARTS = (  # of a stack, in the order of `Part` in network.h
    "attention_in",
    "attention_out",
    "cross_query",
    "cross_out",
    "up",
    "down",
    "attention_norm",
    "cross_norm",
    "feed_forward_norm",
    "embedding_norm",
    "final_norm",
    "source_in",
    "output",
)
_WIDEST_HEAD = 256
_OUTSIDE = -1  # of all layers
_ENCODER, _DECODER = 0, 1
_LARGEST_HALF = torch.finfo(torch.float16).max

Integers = NDArray[np.int32]


def is_available() -> bool:
    """Whether the library was built and this CPU can run it."""
    return library() is not None


def runs(network: EncoderDecoder) -> bool:
    """Whether the library can run a network of this shape."""
    config = network.config
    widest = max(config.head_dim, config.encoder_head_dim)
    return is_available() and widest <= _WIDEST_HEAD and (widest <= 96 or widest in (128, 256))


def _check(code: int) -> None:
    if code:
        raise MemoryError("there was no memory for a step of the model")


@dataclass(frozen=True, slots=True)
class Findings:
    """What a step found, by row.

    Attributes:
        tokens: [rows, most], likeliest first; what there were too few of has the value -inf.
        values: [rows, most] log-probabilities; logits where the width asked for was 0.
        healthy: [rows] whether a row's logits were numbers and the best of them finite.
        logits: [rows, vocabulary], where asked for.
        attention: [layers, rows, heads, source], where asked for.
    """

    tokens: Integers
    values: NDArray[np.float32]
    healthy: NDArray[np.bool_]
    logits: Tensor | None
    attention: Tensor | None


class NativeNetwork:
    """Weights packed in eight bits. Not thread-safe: one thread calls it, or one after the other."""

    def __init__(self, network: EncoderDecoder, threads: int) -> None:
        """Pack a float32 network, whose linear layers and embeddings are given up one by one.

        Args:
            threads: that one call may use.
        """
        found = library()
        if found is None:
            raise RuntimeError("the compiled library is not there, or not for this CPU")
        self.config = network.config
        self._library = found
        self._kept: list[Tensor] = []  # what the library reads where it is
        self._span = 2 * max(self.config.max_positions, self.config.max_target) + 1
        shape = self._shape()
        self._handle = found.stele_network(ctypes.byref(shape), threads)
        if not self._handle:
            raise MemoryError("there was no memory, or no thread, for the model")
        self._finalizer = weakref.finalize(self, found.stele_network_delete, self._handle)
        self._pack(network)

    def _shape(self) -> Shape:
        config = self.config
        scaled = config.is_attention_scaled
        return Shape(
            width=config.width,
            encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers,
            encoder_heads=config.encoder_heads,
            decoder_heads=config.decoder_heads,
            encoder_head_width=config.encoder_head_dim,
            decoder_head_width=config.head_dim,
            encoder_hidden=config.encoder_hidden,
            decoder_hidden=config.decoder_hidden,
            vocabulary=config.vocabulary,
            activation=_ACTIVATIONS.index(config.activation),
            is_gated=config.is_gated,
            is_pre_norm=config.norm == "pre",
            has_final_norm=config.has_final_norm,
            has_embedding_norm=config.has_embedding_norm,
            position_offset=config.position_offset,
            padding=config.pad if config.positions == "tensor2tensor" else -1,
            relative_span=self._span,
            encoder_scale=config.encoder_head_dim**-0.5 if scaled else 1,
            decoder_scale=config.head_dim**-0.5 if scaled else 1,
            embedding_scale=config.embedding_scale,
            output_scale=config.output_scale,
        )

    @torch.no_grad()
    def _pack(self, network: EncoderDecoder) -> None:
        bias = network.logits_bias
        self._linear(_DECODER, _OUTSIDE, "output", [network.output.weight], [bias])
        crosses = [cast(DecoderLayer, layer).cross for layer in network.decoder]
        projections = [cross.key for cross in crosses] + [cross.value for cross in crosses]
        self._linears(_DECODER, _OUTSIDE, "source_in", projections)
        for index, layer in enumerate(network.encoder):
            self._layer(_ENCODER, index, cast(EncoderLayer, layer))
        for index, layer in enumerate(network.decoder):
            decoder_layer = cast(DecoderLayer, layer)
            self._layer(_DECODER, index, decoder_layer)
            self._linears(_DECODER, index, "cross_query", [decoder_layer.cross.query])
            self._linears(_DECODER, index, "cross_out", [decoder_layer.cross.out])
            self._norm(_DECODER, index, "cross_norm", decoder_layer.cross_branch.norm)
        for stack, embedding_norm, final_norm in (
            (_ENCODER, network.encoder_embedding_norm, network.encoder_norm),
            (_DECODER, network.decoder_embedding_norm, network.decoder_norm),
        ):
            self._norm(stack, _OUTSIDE, "embedding_norm", embedding_norm)
            self._norm(stack, _OUTSIDE, "final_norm", final_norm)
        self._tables(network)
        suppressed = np.array(self.config.suppressed, np.int32)
        _check(self._library.stele_suppress(self._handle, len(suppressed), suppressed.ctypes.data))

    def _layer(self, stack: int, index: int, layer: EncoderLayer | DecoderLayer) -> None:
        attention: Attention = layer.attention
        feed_forward: FeedForward = layer.feed_forward
        self._linears(
            stack, index, "attention_in", [attention.query, attention.key, attention.value]
        )
        self._linears(stack, index, "attention_out", [attention.out])
        gate = [feed_forward.gate] if feed_forward.gate is not None else []
        self._linears(stack, index, "up", [*gate, feed_forward.up])
        self._linears(stack, index, "down", [feed_forward.down])
        self._norm(stack, index, "attention_norm", layer.attention_branch.norm)
        self._norm(stack, index, "feed_forward_norm", layer.feed_forward_branch.norm)

    def _linears(self, stack: int, layer: int, part: str, layers: Sequence[nn.Module]) -> None:
        linears = [cast(nn.Linear, each) for each in layers]
        self._linear(
            stack, layer, part, [each.weight for each in linears], [each.bias for each in linears]
        )
        for linear in linears:  # packed: the float32 weights are not needed any more
            linear.weight = nn.Parameter(torch.empty(0))

    def _linear(
        self,
        stack: int,
        layer: int,
        part: str,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor | None],
    ) -> None:
        weight = torch.cat([each.float() for each in weights]) if len(weights) > 1 else weights[0]
        weight = weight.float().contiguous()
        given = [bias.float() for bias in biases if bias is not None]
        bias = torch.cat(given).contiguous() if given else None
        _check(
            self._library.stele_linear(
                self._handle,
                stack,
                layer,
                _PARTS.index(part),
                *weight.shape,
                weight.data_ptr(),
                None if bias is None else bias.data_ptr(),
            )
        )

    def _keep(self, tensor: Tensor) -> int:
        kept = tensor.detach().contiguous()
        self._kept.append(kept)
        return kept.data_ptr()

    def _norm(self, stack: int, layer: int, part: str, norm: nn.Module) -> None:
        if isinstance(norm, nn.Identity):
            return
        kind = 2 if isinstance(norm, RMSNorm) else 1
        weight = self._keep(cast(Tensor, norm.weight).float())
        bias = None if kind == 2 else self._keep(cast(Tensor, norm.bias).float())
        index = _PARTS.index(part)
        epsilon = self.config.norm_epsilon
        self._library.stele_norm(self._handle, stack, layer, index, kind, weight, bias, epsilon)

    def _tables(self, network: EncoderDecoder) -> None:
        stacks = (
            (network.source_embedding, network.encoder_positions, network.encoder_relative),
            (network.embedding, network.decoder_positions, network.decoder_relative),
        )
        halves: dict[Tensor, int] = {}
        for stack, (embedding, positions, relative) in enumerate(stacks):
            table = embedding.weight
            is_half = bool(max(table.max(), -table.min()) <= _LARGEST_HALF)
            if table not in halves:
                halves[table] = self._keep(table.half() if is_half else table.float())
            self._library.stele_tables(
                self._handle,
                stack,
                halves[table],
                is_half,
                None if positions is None else self._keep(positions.weight.float()),
                None if relative is None else self._keep(self._biases(relative)),
            )

    def _biases(self, relative: RelativeBias) -> Tensor:
        """Return [heads, span]: the bias of a key by how far it comes after its query."""
        middle = torch.tensor([[self._span // 2]])
        return relative(middle, self._span)[0, :, 0].float()

    @property
    def bytes(self) -> int:
        """Memory of the packed weights."""
        return int(self._library.stele_network_bytes(self._handle))

    def encode(self, sources: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return the latents [length, width] of sources of any lengths."""
        lengths = np.array([len(source) for source in sources], np.int32)
        tokens = np.concatenate([np.asarray(source, np.int32) for source in sources])
        latents = torch.empty(len(tokens), self.config.width)
        _check(
            self._library.stele_encode(
                self._handle, len(lengths), lengths.ctypes.data, tokens.ctypes.data,
                latents.data_ptr(),
            )
        )
        return list(latents.split(lengths.tolist()))


class NativeCache:
    """Keys and values of rows and of their sources, in half precision."""

    def __init__(self, network: NativeNetwork, rows: int, max_target: int) -> None:
        """Hold `rows` hypotheses of up to `max_target` tokens, and as many sources."""
        config = network.config
        self._network, self._library = network, network._library
        self._handle = self._library.stele_cache(
            config.decoder_layers, rows, config.decoder_heads, config.head_dim, max_target
        )
        if not self._handle:
            raise MemoryError(f"there is no memory for {rows} rows of {max_target} tokens")
        self._finalizer = weakref.finalize(self, self._library.stele_cache_delete, self._handle)

    def add_sources(self, indices: Sequence[int], latents: Sequence[Tensor]) -> None:
        """Project latents [length, width] to the keys and values of the sources at `indices`."""
        sources = np.array(indices, np.int32)
        lengths = np.array([len(latent) for latent in latents], np.int32)
        joined = torch.cat(list(latents))
        _check(
            self._library.stele_add_sources(
                self._network._handle, self._handle, len(sources), sources.ctypes.data,
                lengths.ctypes.data, joined.data_ptr(),
            )
        )

    def close_source(self, index: int) -> None:
        """Forget a source that no row reads."""
        self._library.stele_close_source(self._handle, index)

    def bind(self, row: int, source: int) -> None:
        """Begin an empty row that reads a source."""
        self._library.stele_bind(self._handle, row, source)

    def reorder(self, rows: Sequence[int], parents: Sequence[int], length: int) -> None:
        """Give each of `rows` the first `length` positions of its parent; nothing is copied."""
        to, origin = np.array(rows, np.int32), np.array(parents, np.int32)
        _check(
            self._library.stele_reorder(
                self._handle, len(to), to.ctypes.data, origin.ctypes.data, length
            )
        )

    def step(
        self,
        rows: Sequence[int],
        tokens: Sequence[int],
        positions: Sequence[int],
        widths: Sequence[int],
        *,
        wants_logits: bool = False,
        attention_to: int = 0,
    ) -> Findings:
        """Decode one token in every row.

        Args:
            tokens, positions: what each row reads, and where that stands.
            widths: how many candidates each row wants; 0 is the likeliest token only, without its
                probability.
            attention_to: source tokens whose attention is wanted, at least the longest source.
        """
        config, count, most = self._network.config, len(rows), max(1, max(widths))
        asked = np.array([rows, tokens, positions, widths], np.int32)
        found = np.empty((count, most), np.int32), np.empty((count, most), np.float32)
        healthy = np.empty(count, np.bool_)
        logits = torch.empty(count, config.vocabulary) if wants_logits else None
        shape = config.decoder_layers, count, config.decoder_heads, attention_to
        attention = torch.zeros(shape) if attention_to else None
        address, row = asked.ctypes.data, asked.strides[0]
        ask = Ask(count, address, address + row, address + 2 * row, address + 3 * row, most)
        into = Found(
            found[0].ctypes.data,
            found[1].ctypes.data,
            healthy.ctypes.data,
            None if logits is None else logits.data_ptr(),
            None if attention is None else attention.data_ptr(),
            attention_to,
        )
        arguments: tuple[Any, ...] = ctypes.byref(ask), ctypes.byref(into)
        _check(self._library.stele_decode(self._network._handle, self._handle, *arguments))
        return Findings(*found, healthy, logits, attention)
