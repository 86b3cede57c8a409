"""What measurements come to: percentiles, ratios of paired runs, and arrival times."""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Paired:
    """A ratio measured several times, each time within one turn, so that a busy machine hits both.

    Attributes:
        median, low, high: of the turns' ratios.
        turns: how many there were.
    """

    median: float
    low: float
    high: float
    turns: int

    def as_json(self) -> dict[str, Any]:
        """Return the attributes by name."""
        return asdict(self)


def summary(ratios: Sequence[float]) -> Paired:
    """Return the median and the extremes of ratios that were measured in turns."""
    if not ratios:
        raise ValueError("no turn was measured")
    return Paired(statistics.median(ratios), min(ratios), max(ratios), len(ratios))


def paired(reference: Sequence[float], other: Sequence[float]) -> Paired:
    """Return how many times as fast `other` was as `reference`, from seconds of the same turns."""
    return summary([r / o for r, o in zip(reference, other, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of `values` lie, interpolated linearly."""
    if not values:
        raise ValueError("a percentile of nothing")
    if not 0 <= share <= 1:
        raise ValueError(f"a share of {share}: it must be between 0 and 1")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99; empty where there is nothing."""
    if not values:
        return {}
    return {f"p{round(100 * share)}": percentile(values, share) for share in (0.5, 0.95, 0.99)}


def poisson_arrivals(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """Return the moments, in seconds from the start, at which independent requests arrive."""
    if rate_per_s <= 0:
        raise ValueError(f"a rate of {rate_per_s} per second: it must be above 0")
    chance, moments, now = random.Random(seed), list[float](), 0.0
    while (now := now + chance.expovariate(rate_per_s)) < seconds:
        moments.append(now)
    return moments


def equal_share(ours: Sequence[object], theirs: Sequence[object]) -> float:
    """Return the share of places at which both hold the same."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} outputs against {len(theirs)}")
    return sum(a == b for a, b in zip(ours, theirs, strict=True)) / max(1, len(ours))


def in_turns(
    subjects: Mapping[str, Callable[[], float]],
    *,
    turns: int,
    until: float,
    least: int = 2,
    rest_s: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, list[float]]:
    """Measure the subjects one after the other, turn by turn, every second turn in reverse.

    Args:
        subjects: what to measure, each returns its own figure.
        turns: at most.
        until: the moment of `clock` after which no turn begins, once there were `least`.
        rest_s: before each measurement, for the threads of the one before to fall asleep.
    """
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(turns):
        if turn >= least and clock() >= until:
            break
        for name in list(subjects)[:: -1 if turn % 2 else 1]:
            if rest_s:
                time.sleep(rest_s)
            found[name].append(subjects[name]())
    return found


def highest(fits: Callable[[float], bool], low: float, high: float, steps: int) -> float:
    """Return the highest rate found to fit by halving between `low` and `high`; 0 if none did."""
    best = 0.0
    for _ in range(steps):
        rate = (low * high) ** 0.5
        if fits(rate):
            best = low = rate
        else:
            high = rate
    return best
