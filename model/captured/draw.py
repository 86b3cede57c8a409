"""Sampling within a step: the draws of `model.decoding`, from numbers that the device computes."""

from torch import Tensor

from model.captured.memory import Memory
from model.captured.operations import Likeliest
from model.decoding.choose import sample

_STEP, _MIX = 0x9E3779B97F4A7C15, ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def uniform(seed: Tensor, position: Tensor) -> Tensor:
    """Return the numbers [rows] float64 in [0, 1) that decide the draws; `rows.uniform` of each.

    Args:
        seed: [rows] int64, the bits of an unsigned one; sums and products wrap around.
        position: [rows] int64.
    """
    mixed = seed + (position + 1) * _signed(_STEP)
    for shift, factor in _MIX:
        mixed = (mixed ^ _shifted(mixed, shift)) * _signed(factor)
    return _shifted(mixed ^ _shifted(mixed, 31), 11).double() / 2**53


def _signed(bits: int) -> int:
    return bits - (bits >> 63 << 64)


def _shifted(values: Tensor, count: int) -> Tensor:
    """Shift to the right as unsigned numbers."""
    return (values >> count) & ((1 << (64 - count)) - 1)


def draw(filtered: Tensor, likeliest: Likeliest, row_slot: Tensor, memory: Memory) -> Likeliest:
    """Return the tokens drawn where a row's temperature is above 0, else the likeliest.

    Args:
        filtered: logits [rows, vocabulary]; -inf where a token may not be drawn.
    """
    slot = row_slot.long()
    temperature = memory.temperature[slot]
    draws = uniform(memory.seed[slot], memory.slots.position[slot].long())
    tokens = sample(
        filtered.nan_to_num(nan=0.0),
        temperature,
        memory.top_k[slot],
        memory.top_p[slot],
        draws.float(),
    )
    drawn = tokens.int()[:, None].where(temperature[:, None] > 0, likeliest.tokens)
    return likeliest._replace(tokens=drawn)
