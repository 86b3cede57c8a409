"""What is given to a model: lengths that are the same in every run, and sources of them."""

import random
from collections.abc import Sequence

FORCED = 127  # new tokens of every row, in protocol (a)
MEAN = 87  # of new tokens, in protocol (b), the longest of which has FORCED
BART_SOURCES = (260, 440)


def spread(low: int, high: int, count: int, seed: int) -> list[int]:
    """Return `count` lengths, evenly from `low` to `high`, both among them, in a drawn order."""
    if count == 1:
        return [high]
    lengths = [low + round((high - low) * index / (count - 1)) for index in range(count)]
    random.Random(seed).shuffle(lengths)
    return lengths


def stopped(rows: int, mean: int = MEAN, longest: int = FORCED, seed: int = 7) -> list[int]:
    """Return how many tokens each row generates where rows stop by themselves.

    Random weights never end a target, so lengths are drawn once: evenly about the mean, the
    longest among them.
    """
    return spread(2 * mean - longest, longest, rows, seed)


def sources(
    lengths: Sequence[int], vocabulary: int, special: int = 3, seed: int = 1
) -> list[tuple[int, ...]]:
    """Return distinct sources of ordinary tokens: none below `special`."""
    chance = random.Random(seed)
    return [tuple(chance.randrange(special, vocabulary) for _ in range(n)) for n in lengths]
