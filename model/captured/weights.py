"""Weights as a captured step reads them: joined where one product can do, and shared."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from model.captured.operations import CannotCapture
from model.config import ModelConfig
from model.kv_cache import round_up
from model.layers import RMSNorm
from model.positions import RelativeBias
from model.transformer import DecoderLayer, EncoderDecoder

LENGTH_STEP = 16  # positions are held in whole steps, so that kernels read 16 bytes at once
VOCABULARY_STEP = 64  # rows of logits are aligned, so that kernels read 16 bytes at once


@dataclass(frozen=True, slots=True)
class Linear:
    """A product: weight [out, in], bias [out]."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm's weight and bias, both [width]."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer.

    `qkv` is query, key and value; `up` is the gate and it where there is one, else it has a bias.
    """

    qkv: Linear
    out: Linear
    norm: Norm
    cross_query: Linear
    cross_out: Linear
    cross_norm: Norm
    up: Linear
    down: Linear
    feed_forward_norm: Norm


@dataclass(frozen=True, slots=True)
class Weights:
    """A decoder, and the projection of latents for the cross-attention of all its layers.

    Attributes:
        dtype: of products, keys and values.
        table: [vocabulary, width] of embeddings.
        output: [vocabulary or more, width]; what lies beyond the vocabulary is zeros.
        source: keys then values of layer 0, then of layer 1, ...: [layers * 2 * inner, width].
        distances: [heads, max_target in whole steps] bias of self-attention by distance, float32.
        logits_bias: [vocabulary] float32.
    """

    config: ModelConfig
    dtype: torch.dtype
    table: Tensor
    positions: Tensor | None
    embedding_norm: Norm | None
    layers: tuple[Layer, ...]
    final_norm: Norm | None
    output: Tensor
    logits_bias: Tensor | None
    source: Linear
    distances: Tensor | None


@torch.no_grad()
def gather(network: EncoderDecoder, max_target: int) -> Weights:
    """Return the weights of a network in float32 or a half precision.

    What is joined is held once: the network's own parameters become views of it.

    Raises:
        CannotCapture: the network has eight-bit layers, or fewer positions than `max_target`.
    """
    config = network.config
    if not isinstance(network.output, nn.Linear):
        raise CannotCapture("a captured step runs float32, bfloat16 and float16, not int8")
    positions = network.decoder_positions
    places = None if positions is None else len(positions.weight) - config.position_offset
    if places is not None and max_target > places:
        raise CannotCapture(f"targets of {max_target} tokens; the network has {places} positions")
    layers = [cast(DecoderLayer, layer) for layer in network.decoder]
    return Weights(
        config=config,
        dtype=network.output.weight.dtype,
        table=network.embedding.weight,
        positions=None if positions is None else positions.weight,
        embedding_norm=_norm(network.decoder_embedding_norm),
        layers=tuple(map(_layer, layers)),
        final_norm=_scaled(_norm(network.decoder_norm), config.output_scale),
        output=_padded(network),
        logits_bias=None if network.logits_bias is None else network.logits_bias.float(),
        source=_joined([p for layer in layers for p in (layer.cross.key, layer.cross.value)]),
        distances=_distances(network.decoder_relative, max_target),
    )


def _layer(layer: DecoderLayer) -> Layer:
    attention, cross, feed_forward = layer.attention, layer.cross, layer.feed_forward
    up = _joined([each for each in (feed_forward.gate, feed_forward.up) if each is not None])
    if up.bias is None and feed_forward.gate is None:  # one that joins an activation to the product
        up = Linear(up.weight, up.weight.new_zeros(len(up.weight)))
    return Layer(
        qkv=_joined([attention.query, attention.key, attention.value]),
        out=_joined([attention.out]),
        norm=_required(layer.attention_branch.norm),
        cross_query=_joined([cross.query]),
        cross_out=_joined([cross.out]),
        cross_norm=_required(layer.cross_branch.norm),
        up=up,
        down=_joined([feed_forward.down]),
        feed_forward_norm=_required(layer.feed_forward_branch.norm),
    )


def _joined(linears: Sequence[nn.Linear]) -> Linear:
    """Return one product that makes what all of them do, in their order."""
    if len(linears) == 1:
        return Linear(linears[0].weight, linears[0].bias)
    return Linear(
        _views([linear.weight for linear in linears]),
        None if linears[0].bias is None else _views([linear.bias for linear in linears]),
    )


def _views(parameters: Sequence[Tensor]) -> Tensor:
    joint = torch.cat([parameter.detach() for parameter in parameters])
    parts = torch.split(joint, [len(parameter) for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part
    return joint


def _padded(network: EncoderDecoder) -> Tensor:
    """Return the output matrix with whole steps of rows; a tied table becomes a view of it."""
    weight = network.output.weight
    missing = -len(weight) % VOCABULARY_STEP
    if not missing:
        return weight
    padded = torch.cat([weight.detach(), weight.new_zeros(missing, weight.shape[1])])
    weight.data = padded[: len(weight)]
    return padded


def _norm(module: nn.Module) -> Norm | None:
    if isinstance(module, nn.Identity):
        return None
    return _required(module)


def _required(module: nn.Module) -> Norm:
    assert isinstance(module, nn.LayerNorm | RMSNorm)
    bias = module.bias if isinstance(module, nn.LayerNorm) else None
    return Norm(module.weight, bias)


def _scaled(norm: Norm | None, scale: float) -> Norm | None:
    """Return a norm whose result is multiplied by `scale`, so that nothing else need do it."""
    if norm is None or scale == 1:
        return norm
    bias = None if norm.bias is None else norm.bias.float() * scale
    return Norm(norm.weight.float() * scale, bias)


def _distances(relative: RelativeBias | None, length: int) -> Tensor | None:
    if relative is None:
        return None
    table = relative.by_distance
    capacity = round_up(length, LENGTH_STEP)
    distances = torch.arange(capacity, device=table.device).clamp(max=len(table) - 1)
    return relative.weight[table[distances]].float().t().contiguous()
