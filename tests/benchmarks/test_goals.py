import pytest

from benchmarks.figures import Paired
from benchmarks.goals import GOALS, Goal, at_most, goal_table, verdict
from benchmarks.suite import NAMES, SECTIONS


def measured(ratio: float) -> Paired:
    return Paired(ratio, ratio - 0.1, ratio + 0.1, 3)


@pytest.mark.parametrize(
    ("goal", "ratio", "expected"),
    [
        (Goal("k", "t", 2), 2.0, "met"),
        (Goal("k", "t", 2), 1.999, "missed"),
        (at_most("k", "t", 0.5), 0.5, "met"),
        (at_most("k", "t", 0.5), 0.501, "missed"),
    ],
)
def test_a_goal_is_met_at_its_bound(goal: Goal, ratio: float, expected: str) -> None:
    assert verdict(goal, measured(ratio)) == expected


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert verdict(GOALS[0], None) == "not measured"


def test_the_table_has_a_row_for_every_goal_and_says_why_one_is_empty() -> None:
    first, second, third = (Goal("a", "A", 2), at_most("b", "B", 0.05), Goal("c", "C", 3))
    table = goal_table(
        {"a": measured(2.5)}, {"b": "no venv"}, {"a": "as noted"}, (first, second, third)
    )
    assert table.splitlines()[2:] == [
        "| A (as noted) | ≥ 2 | 2.50 | 2.40 - 2.60 (3) | met |",
        "| B | ≤ 0.05 | - | - | not measured: no venv |",
        "| C | ≥ 3 | - | - | not measured: its section was not asked for |",
    ]


def test_every_goal_is_decided_by_one_section_of_the_default_run() -> None:
    keys = [key for section in SECTIONS for key in section.keys]
    assert sorted(keys) == sorted(goal.key for goal in GOALS)


def test_the_default_run_fits_into_a_quarter_of_an_hour() -> None:
    assert sum(section.budget_s for section in SECTIONS) < 14 * 60
    assert len(set(NAMES)) == len(NAMES)
