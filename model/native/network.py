"""A network in eight bits, run by the compiled library: whole encodings, whole decode steps.

It computes what `EncoderDecoder` computes with the layers of `backends.cpu`, with keys and values
in half precision: that network is its specification, and its fallback.
"""

import ctypes
import weakref
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from model.config import Activation, ModelConfig
from model.layers import Attention, FeedForward, RMSNorm
from model.native.library import Shape, check, library
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
_THREAD_PRODUCTS = 2e7  # to wake a thread and to meet it costs tens of microseconds
_OUTSIDE = -1  # of all layers
_ENCODER, _DECODER = 0, 1
_LARGEST_HALF = torch.finfo(torch.float16).max


def is_available() -> bool:
    """Whether the library was built and this CPU can run it."""
    return library() is not None


def runs(config: ModelConfig) -> bool:
    """Whether the library can run a network of this shape."""
    widths = (config.head_dim, config.encoder_head_dim)
    return is_available() and all(width <= 96 or width in (128, 256) for width in widths)


class NativeNetwork:
    """Weights packed in eight bits. Not thread-safe: its threads call it in turns."""

    def __init__(
        self, network: EncoderDecoder, threads: int, thread_products: float = _THREAD_PRODUCTS
    ) -> None:
        """Pack a float32 network, whose linear layers and embeddings are given up one by one.

        Args:
            threads: that one call may use.
            thread_products: how many products one of them is worth waking for.
        """
        found = library()
        if found is None:
            raise RuntimeError("the compiled library is not there, or not for this CPU")
        self.config = network.config
        self.library = found
        self.threads = threads
        self._kept: list[Tensor] = []  # what the library reads where it is
        self._span = 2 * max(self.config.max_positions, self.config.max_target) + 1
        shape = self._shape()
        self.handle = found.stele_network(ctypes.byref(shape), threads, thread_products)
        if not self.handle:
            raise MemoryError("there was no memory, or no thread, for the model")
        self._finalizer = weakref.finalize(self, found.stele_network_delete, self.handle)
        self._finalizer.atexit = False  # a thread may still be decoding when the interpreter ends
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

    def suppress(self, tokens: Sequence[int]) -> None:
        """Never choose these; their probability counts nevertheless."""
        given = np.array(tokens, np.int32)
        check(self.library.stele_suppress(self.handle, len(given), given.ctypes.data))

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
        check(
            self.library.stele_linear(
                self.handle,
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
        self.library.stele_norm(self.handle, stack, layer, index, kind, weight, bias, epsilon)

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
            self.library.stele_tables(
                self.handle,
                stack,
                halves[table],
                is_half,
                None if positions is None else self._keep(positions.weight.float()),
                None if relative is None else self._keep(self._biases(relative)),
            )

    def _biases(self, relative: RelativeBias) -> Tensor:
        """Return [heads, span]: the bias of a key by how far it comes after its query."""
        middle = torch.tensor([[self._span // 2]])
        biases: Tensor = relative(middle, self._span)
        return biases[0, :, 0].float()

    @property
    def bytes(self) -> int:
        """Memory of the packed weights."""
        return int(self.library.stele_network_bytes(self.handle))

    def encode(self, sources: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return the latents [length, width] of sources of any lengths."""
        lengths = np.array([len(source) for source in sources], np.int32)
        tokens = np.concatenate([np.asarray(source, np.int32) for source in sources])
        # NumPy's arrays: PyTorch's operators would let go of the interpreter, one by one.
        latents = np.empty((len(tokens), self.config.width), np.float32)
        check(
            self.library.stele_encode(
                self.handle,
                len(lengths),
                lengths.ctypes.data,
                tokens.ctypes.data,
                latents.ctypes.data,
            )
        )
        return [torch.from_numpy(one) for one in np.split(latents, lengths.cumsum()[:-1])]
