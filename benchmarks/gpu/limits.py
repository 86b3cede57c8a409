"""What the hardware allows: the least time of a decode step, an encoder batch and a whole batch.

Weights and keys and values have 16 bits. Pure arithmetic over a model's dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from model.config import ModelConfig

_BYTES = 2  # of a weight, a key or a value


@dataclass(frozen=True, slots=True)
class Chip:
    """Measured ceilings: of a device-to-device copy, read and write counted, and of a product."""

    bytes_per_s: float = 3.0e12
    flop_per_s: float = 790e12


H100 = Chip()


def weight_bytes(config: ModelConfig) -> int:
    """Return what a decode step reads of weights: the source's keys and values are cached."""
    return _BYTES * _weights(config)


def _weights(config: ModelConfig) -> int:
    inner = config.decoder_heads * config.head_dim
    up = (2 + config.is_gated) * config.width * config.decoder_hidden
    layer = 6 * config.width * inner + up  # self QKVO, cross Q and O
    return config.decoder_layers * layer + config.vocabulary * config.width


def position_bytes(config: ModelConfig) -> int:
    """Return the bytes of one position's keys and values in all decoder layers."""
    inner = config.decoder_heads * config.head_dim
    return 2 * _BYTES * config.decoder_layers * inner


def step_flop(config: ModelConfig, rows: int, positions: int) -> int:
    """Return the operations of a step: `positions` are all that its `rows` read together."""
    inner = config.decoder_heads * config.head_dim
    return 2 * _weights(config) * rows + 4 * config.decoder_layers * inner * positions


def step_s(config: ModelConfig, rows: int, positions: int, chip: Chip = H100) -> float:
    """Return the least time of one decode step.

    Args:
        positions: of sources and targets so far that the rows read, all rows together.
    """
    moved = weight_bytes(config) + (positions + rows) * position_bytes(config)  # each writes one
    flop = step_flop(config, rows, positions)
    return max(moved / chip.bytes_per_s, flop / chip.flop_per_s)


def encoder_flop(config: ModelConfig, lengths: Sequence[int]) -> int:
    """Return the operations of encoding sources, their keys and values for the decoder included."""
    inner = config.encoder_heads * config.encoder_head_dim
    up = (2 + config.is_gated) * config.width * config.encoder_hidden
    weights = config.encoder_layers * (4 * config.width * inner + up)
    weights += config.decoder_layers * 2 * config.width * config.decoder_heads * config.head_dim
    tokens, squares = sum(lengths), sum(length**2 for length in lengths)
    return 2 * weights * tokens + 4 * config.encoder_layers * inner * squares


def encoder_s(config: ModelConfig, lengths: Sequence[int], chip: Chip = H100) -> float:
    """Return the least time of encoding sources of these lengths together."""
    return encoder_flop(config, lengths) / chip.flop_per_s


def batch_s(
    config: ModelConfig, sources: Sequence[int], targets: Sequence[int], chip: Chip = H100
) -> float:
    """Return the least time of a whole batch: its encoder, then steps of the rows still alive."""
    total = encoder_s(config, sources, chip)
    for step in range(max(targets)):
        live = [source for source, target in zip(sources, targets, strict=True) if target > step]
        total += step_s(config, len(live), sum(live) + step * len(live), chip)
    return total


def slot_bytes(config: ModelConfig, source: int, target: int) -> int:
    """Return what a slot holds: keys and values of `source` and `target` positions."""
    return (source + target) * position_bytes(config)
