"""RowTable: what every row asked for and has generated so far, as tensors of fixed shape."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.decoding.options import DecodingOptions

_MASK = 2**64 - 1


def uniform(seed: int, position: int) -> float:
    """Return the number in [0, 1) that decides the draw at `position`; the same on every device.

    Source: the finaliser of SplitMix64 (Steele, Lea, Flood 2014) over seed and position.
    """
    mixed = (seed + (position + 1) * 0x9E3779B97F4A7C15) & _MASK
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & _MASK
    return ((mixed ^ (mixed >> 31)) >> 11) / 2**53


class RowTable:
    """Options and token history by row.

    `history` begins with the start token and is filled with it beyond `lengths`, as the
    reference's filters see the start token too.
    """

    def __init__(self, rows: int, max_target: int, start: int, device: torch.device) -> None:
        self.start = start
        self.history = torch.full((rows, max_target + 1), start, dtype=torch.long, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.min_lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.repetition_penalty = torch.ones(rows, device=device)
        self.ngram = np.zeros(rows, dtype=np.int64)
        self.options: dict[int, DecodingOptions] = {}

    def occupy(self, row: int, options: DecodingOptions) -> None:
        """Begin a new target in `row`."""
        self.history[row] = self.start
        self.lengths[row] = 0
        self.min_lengths[row] = options.min_new_tokens
        self.repetition_penalty[row] = options.repetition_penalty
        self.ngram[row] = options.no_repeat_ngram_size
        self.options[row] = options

    def vacate(self, row: int) -> None:
        """Forget what `row` held, if anything."""
        self.options.pop(row, None)

    def newest(self, rows: Tensor) -> Tensor:
        """Return the token that each row's next step reads, [rows]."""
        return self.history[rows, self.lengths[rows]]

    def append(self, rows: Tensor, tokens: Tensor) -> None:
        """Record one chosen token per row."""
        lengths = self.lengths[rows] + 1
        self.history[rows, lengths] = tokens  # raises beyond the capacity, with nothing changed
        self.lengths[rows] = lengths

    def draws(self, rows: Sequence[int], positions: Sequence[int]) -> list[float]:
        """Return each row's uniform number at its position."""
        return [uniform(self.options[r].seed, p) for r, p in zip(rows, positions, strict=True)]

    def __repr__(self) -> str:
        return f"<RowTable {len(self.options)}/{len(self.lengths)} rows>"
