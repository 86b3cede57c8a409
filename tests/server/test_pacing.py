import math
from itertools import pairwise

import pytest

from model import DecodingOptions, Step
from server.generation import Finish, Generation
from server.pacing import MOST_STEPS, Pacer, period_s, rows_by_step, steps_at_once, wants_first


def generation(identity: int, *, streams: bool = True) -> Generation:
    return Generation(
        id=identity,
        group=identity,
        source=(1, 2),
        options=DecodingOptions(max_new_tokens=9),
        max_new_tokens=9,
        deadline=60.0,
        accepted_at=0.0,
        streams=streams,
    )


def test_several_steps_are_taken_at_once_where_nobody_waits_for_one() -> None:
    assert steps_at_once(0.0002, 60.0, 0, is_awaited=False) == MOST_STEPS
    assert steps_at_once(0.0, math.inf, 0, is_awaited=False) == MOST_STEPS
    assert steps_at_once(0.0002, 60.0, 0, is_awaited=True) == 1
    assert steps_at_once(0.0002, 0.03, 0, is_awaited=False) == 1


@pytest.mark.parametrize("streams", [0, 5, 64])
@pytest.mark.parametrize(("step_s", "steps"), [(0.002, 8), (0.005, 4), (0.011, 1), (3.0, 1)])
def test_steps_together_take_no_longer_than_a_cancellation_may_wait(
    step_s: float, steps: int, streams: int
) -> None:
    assert steps_at_once(step_s, 60.0, streams, is_awaited=False) == steps


@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize(("step_s", "steps"), [(0.0001, 8), (0.0004, 5), (0.0011, 1), (0.02, 1)])
def test_a_few_streams_do_not_see_that_tokens_come_together(
    step_s: float, steps: int, streams: int
) -> None:
    assert steps_at_once(step_s, 60.0, streams, is_awaited=False) == steps


@pytest.mark.parametrize("streams", [0, 1, 64])
@pytest.mark.parametrize(("step_s", "steps"), [(0.0001, 3), (0.0009, 2), (0.0011, 1), (0.02, 1)])
def test_a_slot_is_not_awaited_for_more_than_a_few_short_steps(
    step_s: float, steps: int, streams: int
) -> None:
    assert steps_at_once(step_s, 60.0, streams, is_awaited=False, is_full=True) == steps


def test_the_first_token_of_one_of_few_streams_comes_by_itself() -> None:
    begun, beginning, collected = generation(1), generation(2), generation(3, streams=False)
    begun.first_token_at = 0.0

    assert wants_first([begun, beginning], 2)
    assert not wants_first([begun, collected], 1)
    assert not wants_first([collected], 0)
    assert not wants_first([begun, beginning], 5)


def test_a_few_streams_are_told_every_token() -> None:
    pacer, few = Pacer(), [generation(number) for number in range(4)]

    for now in (0.0, 0.0001, 0.0002):
        assert pacer.due(few, 4, now) == few


def test_telling_many_streams_takes_a_small_share_of_the_time_however_many_there_are() -> None:
    for streams in (5, 64, 1000):
        assert streams / period_s(streams) * 1e-4 == pytest.approx(0.02)
    assert [period_s(streams) for streams in range(5)] == [0.0] * 5


def test_a_stream_is_told_its_first_news_at_once_and_later_ones_when_they_are_due() -> None:
    pacer, first, second = Pacer(), generation(1), generation(2)
    told = []
    for step in range(1, 1025):
        now = step / 1024
        changed = [first, second] if step > 50 else [first]
        told += [(one.id, now) for one in pacer.due(changed, 64, now)]

    times = {identity: [now for who, now in told if who == identity] for identity in (1, 2)}
    assert [times[1][0], times[2][0]] == [1 / 1024, 51 / 1024]
    assert times[1][1:] == times[2][1:], "together: waking the event loop once is cheaper"
    assert times[1][1] - times[1][0] <= period_s(64) + 0.001
    gaps = [later - earlier for earlier, later in pairwise(times[1][1:])]
    assert gaps == pytest.approx([period_s(64)] * len(gaps), abs=0.001)
    assert len(gaps) == 2


def test_what_was_kept_back_comes_when_it_is_due_though_nothing_follows() -> None:
    pacer, subject = Pacer(), generation(1)
    assert pacer.due([subject], 64, 0.0) == [subject]
    assert pacer.due([subject], 64, 0.001) == []
    assert pacer.due([], 64, 0.002) == []
    assert pacer.due([], 64, 1.0) == [subject]
    assert pacer.due([], 64, 2.0) == []


def test_an_end_is_told_at_once_and_once() -> None:
    pacer, streaming, collected = Pacer(), generation(1), generation(2, streams=False)
    assert pacer.due([streaming, collected], 64, 0.0) == [streaming]
    assert pacer.due([streaming, collected], 64, 0.001) == []
    streaming.finish = collected.finish = Finish.STOP
    assert pacer.due([collected, streaming, streaming], 64, 0.002) == [streaming, collected]
    assert pacer.due([], 64, 9.0) == []


def test_streams_that_become_few_are_told_every_token_again() -> None:
    pacer, subject = Pacer(), generation(1)
    pacer.due([subject], 64, 0.0)
    assert pacer.due([subject], 2, 0.2) == [subject]
    assert pacer.due([subject], 2, 0.2001) == [subject]


def test_rows_whose_source_is_still_encoded_take_no_step() -> None:
    rows = {0: 1, 1: 1, 2: 4, 6: 4}
    steps = [(0, Step((5, 6))), (1, Step(is_awaited=True)), (2, Step()), (6, Step(is_awaited=True))]
    assert rows_by_step(rows, steps) == [5, 1]


def test_steps_of_searches_are_counted_as_they_say_and_others_by_their_tokens() -> None:
    found = [(0, Step((5, 6, 7))), (1, Step((5,), steps=2)), (4, Step())]
    assert rows_by_step({0: 1, 1: 3, 4: 1}, found) == [5, 4, 1]
