"""RowTable: what every row asked for and holds so far, as tensors of fixed shape."""

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

    `history` begins with the start token and is filled with it beyond what is known, as the
    reference's filters see the start token too. A target prefix is known before it is decoded:
    `lengths` counts what has been decoded, the prefix included.
    """

    def __init__(self, rows: int, max_target: int, start: int, device: torch.device) -> None:
        self._start = start
        self.history = torch.full((rows, max_target + 1), start, dtype=torch.long, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.decoded = [0] * rows  # `lengths`, where no device has to be asked
        self.min_lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.repetition_penalty = torch.ones(rows, device=device)
        self.ngram = np.zeros(rows, dtype=np.int64)
        self.options: dict[int, DecodingOptions] = {}

    def occupy(self, row: int, options: DecodingOptions) -> None:
        """Begin a new target in `row`."""
        prefix = options.target_prefix
        self.history[row] = self._start if options.start is None else options.start
        if prefix:
            self.history[row, 1 : len(prefix) + 1] = torch.tensor(prefix)
        self.lengths[row] = self.decoded[row] = 0
        self.min_lengths[row] = len(prefix) + options.min_new_tokens
        self.repetition_penalty[row] = options.repetition_penalty
        self.ngram[row] = options.no_repeat_ngram_size
        self.options[row] = options

    def vacate(self, row: int) -> None:
        """Forget what `row` held, if anything."""
        self.options.pop(row, None)

    def newest(self, rows: Tensor) -> Tensor:
        """Return the token that each row's next step reads, [rows]."""
        return self.history[rows, self.lengths[rows]]

    def known(self, row: int) -> int | None:
        """Return the next token of `row` where its target prefix tells it."""
        prefix, position = self.options[row].target_prefix, self.decoded[row]
        return prefix[position] if position < len(prefix) else None

    def verify_room(self, row_list: Sequence[int]) -> None:
        """Raise IndexError if a row cannot hold one token more."""
        for row in row_list:
            if self.decoded[row] + 1 >= self.history.shape[1]:
                raise IndexError(f"row {row} holds {self.decoded[row]} tokens, all it can")

    def append(self, row_list: Sequence[int], tokens: Sequence[int]) -> None:
        """Record one token per row, for which there must be room."""
        rows = torch.tensor(row_list, device=self.lengths.device)
        lengths = self.lengths[rows] + 1
        self.history[rows, lengths] = torch.tensor(tokens, device=lengths.device)
        self.lengths[rows] = lengths
        for row in row_list:
            self.decoded[row] += 1

    def reorder(self, rows: Tensor, parents: Tensor) -> None:
        """Give each of `rows` the history of its parent."""
        self.history[rows] = self.history[parents]

    def draws(self, rows: Sequence[int], positions: Sequence[int]) -> list[float]:
        """Return each row's uniform number at its position."""
        return [uniform(self.options[r].seed, p) for r, p in zip(rows, positions, strict=True)]

    def __repr__(self) -> str:
        return f"<RowTable {len(self.options)}/{len(self.lengths)} rows>"
