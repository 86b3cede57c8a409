import itertools
import statistics

import pytest

from benchmarks.figures import (
    equal_share,
    highest,
    in_turns,
    paired,
    percentile,
    poisson_arrivals,
    spread,
    summary,
)


def test_a_paired_ratio_compares_within_turns() -> None:
    """A machine that is ten times as slow in one turn slows both: the ratio stays."""
    found = paired([2.0, 20.0, 2.2], [1.0, 10.0, 1.0])
    assert (found.median, found.low, found.high, found.turns) == (2.0, 2.0, 2.2, 3)


def test_turns_without_a_partner_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="no turn"):
        summary([])


@pytest.mark.parametrize(
    ("share", "expected"), [(0, 1), (0.5, 2.5), (1, 4), (1 / 3, 2), (0.99, 3.97)]
)
def test_percentiles_interpolate(share: float, expected: float) -> None:
    assert percentile([4, 1, 3, 2], share) == pytest.approx(expected)


def test_percentiles_of_nothing_or_beyond_all_are_errors() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile([1.0], 99)
    assert spread([]) == {}
    assert spread([5.0]) == {"p50": 5.0, "p95": 5.0, "p99": 5.0}


def test_poisson_arrivals_have_their_rate_and_the_spread_of_independent_ones() -> None:
    moments = poisson_arrivals(50, 200, seed=7)
    assert moments == sorted(moments)
    assert moments[0] >= 0
    assert moments[-1] < 200
    assert len(moments) / 200 == pytest.approx(50, rel=0.05)
    gaps = [b - a for a, b in itertools.pairwise(moments)]
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.1)
    assert moments == poisson_arrivals(50, 200, seed=7)
    assert moments != poisson_arrivals(50, 200, seed=8)
    with pytest.raises(ValueError, match="above 0"):
        poisson_arrivals(0, 1, seed=1)


def test_equal_outputs_are_counted_place_by_place() -> None:
    assert equal_share([[1, 2], [3]], [[1, 2], [4]]) == 0.5
    with pytest.raises(ValueError, match="1 outputs against 2"):
        equal_share(["a"], ["a", "b"])


def test_subjects_alternate_and_every_second_turn_is_reversed() -> None:
    order: list[str] = []

    def subject(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = in_turns({"a": lambda: subject("a"), "b": lambda: subject("b")}, turns=3, until=1e99)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_turns_end_with_the_budget_but_not_before_the_least() -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 10
        return now

    found = in_turns({"a": lambda: 1.0}, turns=9, until=25, least=2, clock=clock)
    assert len(found["a"]) == 4  # two for certain, then the clock says 10 and 20
    late = in_turns({"a": lambda: 1.0}, turns=9, until=0, least=2, clock=clock)
    assert len(late["a"]) == 2


def test_the_highest_rate_is_found_by_halving() -> None:
    tried: list[float] = []

    def fits(rate: float) -> bool:
        tried.append(rate)
        return rate <= 80

    found = highest(fits, 10, 1000, steps=6)
    assert found <= 80
    assert found == max(rate for rate in tried if rate <= 80)
    assert found == pytest.approx(80, rel=0.1)
    assert highest(lambda rate: False, 10, 1000, steps=3) == 0
