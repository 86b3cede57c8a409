"""What is measured offline, and what seconds come to."""

from pathlib import Path

import pytest

from benchmarks.bench import Bench
from benchmarks.cases import Case, base_cases, bundled_cases, random_sources
from benchmarks.direct import Work
from benchmarks.offline import step_ms
from benchmarks.offline_nllb import cases as nllb_cases
from model import BUNDLED


def bundled() -> list[Case]:
    return bundled_cases(Bench(Path("unused"), BUNDLED, is_quick=True))


def test_random_sources_are_distinct_and_as_long_as_asked() -> None:
    found = random_sources([5, 9, 9], seed=1)
    assert [len(source) for source in found] == [5, 9, 9]
    assert len(set(map(tuple, found))) == 3
    assert all(source[-1] == 0 for source in found)


def test_goals_are_decided_by_cases_of_fixed_lengths() -> None:
    decided = [case for case in base_cases() if case.key and case.key.startswith("base_")]
    assert {case.work.rows for case in decided} == {1, 4, 16, 64}
    for case in decided:
        assert {len(source) for source in case.work.sources} == {30}
        assert len(case.work.sources) % case.work.rows == 0


@pytest.mark.parametrize("cases", [base_cases(), bundled()], ids=["base", "bundled"])
def test_every_batch_is_measured_greedily_and_with_four_beams(cases: list[Case]) -> None:
    found = {(case.work.rows, case.work.beams) for case in cases}
    assert found == {(rows, beams) for rows in (1, 4, 16, 64) for beams in (1, 4)}
    for case in cases:
        assert len(case.work.calls[0]) >= case.work.rows, case.name


@pytest.mark.parametrize(
    "cases", [base_cases(), bundled(), nllb_cases()], ids=["base", "bundled", "nllb"]
)
def test_cases_have_three_turns_or_more_and_goals_have_five(cases: list[Case]) -> None:
    for case in cases:
        assert case.turns >= (5 if case.key else 3), case.name


@pytest.mark.parametrize("cases", [base_cases(), bundled()], ids=["base", "bundled"])
def test_threads_are_taken_from_a_case_that_tries_them_all(cases: list[Case]) -> None:
    names = [case.name for case in cases]
    for number, case in enumerate(cases):
        if case.threads_as:
            before = cases[names.index(case.threads_as)]
            assert names.index(case.threads_as) < number
            assert (before.threads_as, before.work.beams) == (None, case.work.beams)


def work(count: int, rows: int, *, at_once: bool = False) -> Work:
    return Work(sources=[[1]] * count, rows=rows, longest=4, at_once=at_once)


def test_where_lengths_are_fixed_a_step_is_the_time_over_the_steps() -> None:
    targets = [[5, 6, 7, 8]] * 6
    assert step_ms(0.6, targets, work(6, 3), batches=1) == pytest.approx(75)  # 2 calls, 4 steps
    assert step_ms(0.8, targets[:2], work(2, 1), batches=2) == pytest.approx(100)  # one a call


def test_where_targets_end_their_ends_are_steps_too() -> None:
    assert step_ms(0.3, [[5], [5, 6, 7]], work(2, 1, at_once=True), batches=1) == pytest.approx(50)


def test_batches_beside_each_other_count_as_sentences_at_work() -> None:
    """Two batches of one sentence each take twice as long a step as one alone would."""
    targets = [[5, 6, 7, 8]] * 4
    assert step_ms(0.8, targets, work(4, 1, at_once=True), batches=1) == pytest.approx(50)
    assert step_ms(0.8, targets, work(4, 1, at_once=True), batches=2) == pytest.approx(100)
    assert step_ms(0.8, targets, work(4, 3, at_once=True), batches=2) == pytest.approx(200)
