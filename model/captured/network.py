"""The decoder over one position of every row, in static shapes; the eager one is its definition.

Matrix products run in the network's own precision; residual stream, norms, softmax and logits are
float32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.captured.memory import Memory
from model.captured.operations import Operations
from model.captured.weights import Layer, Linear, Norm, Weights
from model.layers import ACTIVATIONS


class Decoder:
    """Runs the rows that `row_slot` names, each from the token of its slot to its logits."""

    def __init__(self, weights: Weights, memory: Memory, operations: Operations) -> None:
        self._weights, self._memory, self._operations = weights, memory, operations
        config = weights.config
        self._is_pre = config.norm == "pre"
        self._activation = ACTIVATIONS[config.activation]
        self._scale = config.head_dim**-0.5 if config.is_attention_scaled else 1.0
        self._norms = _norms(weights)

    def __call__(self, row_slot: Tensor, attention: list[Tensor] | None = None) -> Tensor:
        """Return logits without their bias, [rows, vocabulary or more] float32.

        Args:
            row_slot: [rows] int32, as `operations` says.
            attention: receives the weights of each layer's cross-attention, [rows, heads, S].
        """
        stream, hidden = self._enter(row_slot)
        for index, (layer, norms) in enumerate(zip(self._weights.layers, self._norms, strict=True)):
            update = self._attend(index, layer, hidden, row_slot)
            stream, hidden = self._leave(stream, update, norms[0])
            update = self._look(index, layer, hidden, row_slot, attention)
            stream, hidden = self._leave(stream, update, norms[1])
            stream, hidden = self._leave(stream, self._feed(layer, hidden), norms[2])
        return product_float32(self._last(stream, hidden), self._weights.output)

    def _enter(self, row_slot: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residual stream and what the first layer reads."""
        weights, config = self._weights, self._weights.config
        stream = self._operations.embed(
            row_slot,
            self._memory.slots,
            weights.table,
            config.embedding_scale,
            weights.positions,
            config.position_offset,
            config.pad if config.positions == "tensor2tensor" else None,
        )
        hidden = stream.to(weights.dtype)
        if weights.embedding_norm is not None:
            stream, hidden = self._norm(stream, None, weights.embedding_norm, is_pre=False)
        if self._is_pre:
            return self._norm(stream, None, weights.layers[0].norm, is_pre=True)
        return stream, hidden

    def _last(self, stream: Tensor, hidden: Tensor) -> Tensor:
        """Return what the output layer reads, from the last layer's."""
        final, scale = self._weights.final_norm, self._weights.config.output_scale
        if final is None:
            return hidden if scale == 1 else hidden * scale
        return hidden if self._is_pre else self._norm(stream, None, final, is_pre=False)[1]

    def _norm(
        self, stream: Tensor, update: Tensor | None, norm: Norm, *, is_pre: bool
    ) -> tuple[Tensor, Tensor]:
        config, dtype = self._weights.config, self._weights.dtype
        return self._operations.add_norm(
            stream,
            update,
            norm.weight,
            norm.bias,
            config.norm_epsilon,
            config.norm_kind,
            is_pre,
            dtype,
        )

    def _leave(self, stream: Tensor, update: Tensor, norm: Norm | None) -> tuple[Tensor, Tensor]:
        """Return the stream after a branch, and what the next one reads."""
        if norm is None:
            stream = stream + update
            return stream, stream.to(self._weights.dtype)
        return self._norm(stream, update, norm, is_pre=self._is_pre)

    def _attend(self, index: int, layer: Layer, hidden: Tensor, row_slot: Tensor) -> Tensor:
        memory, slots = self._memory, self._memory.slots
        mixed = self._operations.append_attend(
            linear(hidden, layer.qkv),
            memory.keys[index],
            memory.values[index],
            row_slot,
            slots.position,
            slots.is_active,
            slots.ancestors,
            self._weights.distances,
            self._scale,
        )
        return linear(mixed, layer.out)

    def _look(
        self,
        index: int,
        layer: Layer,
        hidden: Tensor,
        row_slot: Tensor,
        attention: list[Tensor] | None,
    ) -> Tensor:
        memory = self._memory
        query, keys = linear(hidden, layer.cross_query), memory.source_keys[index]
        if attention is not None:
            attention.append(self._matches(query, keys, row_slot))
        mixed = self._operations.cross_attend(
            query,
            keys,
            memory.source_values[index],
            row_slot,
            memory.source_of_slot,
            memory.source_length,
            memory.slots.is_active,
            self._scale,
        )
        return linear(mixed, layer.cross_out)

    def _matches(self, query: Tensor, keys: Tensor, row_slot: Tensor) -> Tensor:
        """Return how much each row looks at each position of its source, [rows, heads, S]."""
        heads, capacity, head_dim = keys.shape[1:]
        source = self._memory.source_of_slot[row_slot.long()].long()
        scores = torch.einsum(
            "rhd,rhsd->rhs", query.view(-1, heads, head_dim).float(), keys[source].float()
        )
        places = torch.arange(capacity, device=query.device)
        is_beyond = places >= self._memory.source_length[source][:, None]
        return (scores * self._scale).masked_fill(is_beyond[:, None], float("-inf")).softmax(2)

    def _feed(self, layer: Layer, hidden: Tensor) -> Tensor:
        config, up = self._weights.config, layer.up
        if config.activation == "relu" and not config.is_gated:
            assert up.bias is not None
            # In the product's own kernel. There is no such form of other activations: its GELU is
            # the approximation by tanh.
            raised = torch._addmm_activation(up.bias, hidden, up.weight.t())
            return linear(raised, layer.down)
        raised = linear(hidden, up)
        if config.is_gated:
            gate, raised = raised.chunk(2, 1)
            return linear(self._activation(gate) * raised, layer.down)
        return linear(self._activation(raised), layer.down)


def _norms(weights: Weights) -> list[tuple[Norm | None, Norm | None, Norm | None]]:
    """Return the norm after each branch of each layer.

    It belongs to the next branch where norms come first, else to the branch itself.
    """
    layers = weights.layers
    if weights.config.norm == "post":
        return [(x.norm, x.cross_norm, x.feed_forward_norm) for x in layers]
    first = [*(layer.norm for layer in layers[1:]), weights.final_norm]
    return [
        (layer.cross_norm, layer.feed_forward_norm, following)
        for layer, following in zip(layers, first, strict=True)
    ]


def linear(hidden: Tensor, weights: Linear) -> Tensor:
    """Return [rows, out] in the precision of the weight, which the product runs in."""
    return F.linear(hidden.to(weights.weight.dtype), weights.weight, weights.bias)


def product_float32(hidden: Tensor, weight: Tensor) -> Tensor:
    """Return `hidden @ weight.T` in float32, from any precision, without rounding it between."""
    if hidden.dtype == torch.float32:
        return hidden @ weight.t()
    if hidden.is_cpu:  # no such product there
        return hidden.float() @ weight.t().float()
    return torch.mm(hidden, weight.t(), out_dtype=torch.float32)
