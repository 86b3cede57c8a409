"""RowTable: what every row asked for and holds so far, on the host."""

from collections.abc import Sequence

import numpy as np

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


def forced_tokens(options: DecodingOptions) -> dict[int, int]:
    """Return the tokens that must come, by how many precede them, the prefix included."""
    forced: dict[int, int] = {}
    if options.forced_bos is not None:
        forced[0] = options.forced_bos
    if options.forced_eos is not None:
        forced[len(options.target_prefix) + options.max_new_tokens - 1] = options.forced_eos
    return forced


class RowTable:
    """Options and token history by row.

    `history` begins with the start token, as the reference's filters see it too; what lies beyond
    `decoded` is anything. Plain lists and NumPy: an operator on a small tensor costs as much as
    dozens of rows here.

    Attributes:
        decoded: tokens of each row that were decoded, the prefix included.
        newest: the token that each row's next step reads.
        sampling, penalised, restricted: rows that draw, whose repeated tokens are penalised, and
            some of whose tokens may be forbidden: most steps have none and need not look further.
        forced: of rows that have any, as `forced_tokens` says.
    """

    def __init__(self, rows: int, max_target: int, start: int) -> None:
        self._start = start
        self.history = np.full((rows, max_target + 1), start, dtype=np.int64)
        self.decoded = [0] * rows
        self.newest = [start] * rows
        self.options: dict[int, DecodingOptions] = {}
        self.sampling: set[int] = set()
        self.penalised: set[int] = set()
        self.restricted: set[int] = set()
        self.forced: dict[int, dict[int, int]] = {}

    def occupy(self, row: int, options: DecodingOptions) -> None:
        """Begin a new target in `row`; its prefix must fit."""
        if len(options.target_prefix) >= self.history.shape[1]:
            raise ValueError(f"a prefix of {len(options.target_prefix)} tokens")
        self.vacate(row)
        start = self._start if options.start is None else options.start
        self.history[row, 0] = self.newest[row] = start
        self.decoded[row] = 0
        self.options[row] = options
        if options.samples:
            self.sampling.add(row)
        if options.repetition_penalty != 1:
            self.penalised.add(row)
        if options.no_repeat_ngram_size or options.suppressed or options.min_new_tokens:
            self.restricted.add(row)
        if forced := forced_tokens(options):
            self.forced[row] = forced

    def vacate(self, row: int) -> None:
        """Forget what `row` held, if anything."""
        self.options.pop(row, None)
        self.forced.pop(row, None)
        for rows in (self.sampling, self.penalised, self.restricted):
            rows.discard(row)

    def verify_room(self, rows: Sequence[int]) -> None:
        """Raise IndexError if a row cannot hold one token more."""
        capacity = self.history.shape[1]
        for row in rows:
            if self.decoded[row] + 1 >= capacity:
                raise IndexError(f"row {row} holds {self.decoded[row]} tokens, all it can")

    def append(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Record one token per row, for which there must be room."""
        decoded, newest = self.decoded, self.newest
        for row, token in zip(rows, tokens, strict=True):
            decoded[row] += 1
            newest[row] = token
        self.history[rows, [decoded[row] for row in rows]] = tokens

    def extend(self, row: int, tokens: Sequence[int]) -> None:
        """Record several tokens of one row, for which there must be room."""
        begin = self.decoded[row] + 1
        self.history[row, begin : begin + len(tokens)] = tokens
        self.decoded[row] += len(tokens)
        self.newest[row] = tokens[-1] if tokens else self.newest[row]

    def rewrite(self, row: int, tokens: Sequence[int]) -> None:
        """Let a row hold these tokens after its start token, for which there must be room."""
        self.history[row, 1 : len(tokens) + 1] = tokens
        self.decoded[row] = len(tokens)
        self.newest[row] = tokens[-1] if tokens else int(self.history[row, 0])

    def reorder(self, rows: Sequence[int], parents: Sequence[int]) -> None:
        """Give each of `rows` the history of its parent, of the same length."""
        length = max(self.decoded[row] for row in rows) + 1
        self.history[rows, :length] = self.history[parents, :length]

    def draws(self, rows: Sequence[int]) -> list[float]:
        """Return each row's uniform number at its position."""
        return [uniform(self.options[row].seed, self.decoded[row]) for row in rows]

    def __repr__(self) -> str:
        return f"<RowTable {len(self.options)}/{len(self.decoded)} rows>"
