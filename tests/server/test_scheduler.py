import math
import random
from collections.abc import Iterable
from typing import Any

import pytest

from model import DecodingOptions, Step
from server.generation import Finish, Generation
from server.scheduler import Scheduler

EOS = 0


def generation(
    identity: int,
    *,
    group: int = 0,
    source: int = 3,
    length: int = 9,
    deadline: float = 60.0,
    beams: int = 1,
    previews: bool = False,
    **options: Any,
) -> Generation:
    return Generation(
        id=identity,
        group=group,
        source=tuple(range(1, source + 1)),
        options=DecodingOptions(max_new_tokens=length, num_beams=beams, **options),
        max_new_tokens=length,
        deadline=deadline,
        accepted_at=0.0,
        previews=previews,
    )


def scheduler(*waiting: Generation, slots: int = 2, budget: int = 1000) -> Scheduler:
    subject = Scheduler(slots, EOS, budget)
    for each in waiting:
        subject.add(each)
    return subject


def step(subject: Scheduler, tokens: dict[int, int], now: float = 1.0) -> list[Generation]:
    return subject.commit([(s, Step((t,), (-0.5,))) for s, t in tokens.items()], now)


def ids(generations: Iterable[Generation]) -> list[int]:
    return [each.id for each in generations]


def test_a_finished_generation_frees_its_slot_for_the_next_one_once_it_is_reclaimed() -> None:
    first, second = generation(1), generation(2)
    subject = scheduler(first, second, slots=1)
    assert subject.admit(0.0) == {0: first}

    assert step(subject, {0: EOS}) == [first]

    assert first.finish is Finish.STOP
    assert repr(subject) == "<Scheduler 0 running, 1 waiting, 0 free>"
    assert subject.admit(0.0) == {}
    assert subject.reclaim() == [0]
    assert subject.admit(0.0) == {0: second}
    assert repr(subject) == "<Scheduler 1 running, 0 waiting, 0 free>"


@pytest.mark.parametrize(
    ("token", "length", "is_healthy", "finish", "target"),
    [
        (EOS, 9, True, Finish.STOP, []),
        (7, 1, True, Finish.LENGTH, [7]),
        (7, 9, True, None, [7]),
        (7, 9, False, Finish.ERROR, []),
        (EOS, 9, False, Finish.ERROR, []),
    ],
)
def test_what_a_token_does_to_a_running_generation(
    token: int, length: int, is_healthy: bool, finish: Finish | None, target: list[int]
) -> None:
    subject = scheduler(only := generation(1, length=length))
    ((slot, _),) = subject.admit(0.0).items()

    assert subject.commit([(slot, Step((token,), (-0.5,), is_healthy=is_healthy))], 1.0) == [only]

    assert only.finish is finish
    assert only.target == target
    assert subject.idle is False  # a slot is still held, or has to be reclaimed


def test_scores_follow_tokens_and_the_first_token_is_timed() -> None:
    subject = scheduler(only := generation(1))
    subject.admit(0.5)

    subject.commit([(0, Step((7,), (-0.25,)))], 2.0)
    subject.commit([(0, Step((8,), (-0.75,)))], 3.0)

    assert (only.target, only.scores) == ([7, 8], [-0.25, -0.75])
    assert (only.admitted_at, only.first_token_at) == (0.5, 2.0)


@pytest.mark.parametrize("is_running", [True, False])
def test_cancelling_ends_what_runs_and_what_waits(is_running: bool) -> None:
    subject = scheduler(generation(1), given_up := generation(2), slots=2 if is_running else 1)
    subject.admit(0.0)

    assert subject.cancel([2]) == [given_up]

    assert given_up.finish is Finish.CANCELLED
    assert subject.reclaim() == ([given_up.slots[0]] if is_running else [])
    assert repr(subject) == f"<Scheduler 1 running, 0 waiting, {int(is_running)} free>"
    assert subject.cancel([2]) == []


def test_deadlines_end_what_runs_and_what_waits_and_nothing_else() -> None:
    late = [generation(1, deadline=5.0), generation(2, deadline=5.0)]
    subject = scheduler(late[0], generation(3), late[1], slots=2)
    subject.admit(0.0)

    assert subject.expire(4.9) == []
    assert ids(subject.expire(5.0)) == [1, 2]
    assert [each.finish for each in late] == [Finish.TIMEOUT] * 2
    assert ids(subject.admit(5.0).values()) == []
    assert subject.reclaim() == [0]
    assert subject.expire(59.0) == []


def test_groups_take_turns_so_that_a_document_does_not_keep_a_sentence_waiting() -> None:
    document = [generation(i, group=1) for i in range(10)]
    subject = scheduler(*document, generation(100, group=2), generation(101, group=3), slots=4)

    assert ids(subject.admit(0.0).values()) == [0, 100, 101, 1]


def test_a_group_keeps_its_order() -> None:
    subject = scheduler(*[generation(i, group=1) for i in range(5)], slots=3)

    assert ids(subject.admit(0.0).values()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("sources", "budget", "admitted"),
    [
        ([10, 10, 10], 15, 3),
        ([10, 10, 10], 14, 2),
        ([10, 10, 10], 5, 1),
        ([500, 10], 5, 1),  # one is always admitted, however long
        ([1, 500, 1], 5, 1),  # nobody overtakes
    ],
)
def test_source_tokens_bound_what_one_tick_admits(
    sources: list[int], budget: int, admitted: int
) -> None:
    subject = half_taken(budget)
    for i, size in enumerate(sources):
        subject.add(generation(i, group=i, source=size))

    assert len(subject.admit(0.0)) == admitted


@pytest.mark.parametrize(("encoding", "admitted"), [(0, 3), (10, 2), (20, 1), (29, 0), (1000, 0)])
def test_what_is_still_encoded_counts_against_the_budget(encoding: int, admitted: int) -> None:
    subject = half_taken(15)
    for i in range(4):
        subject.add(generation(i, group=i, source=10))

    assert len(subject.admit(0.0, encoding)) == admitted


def half_taken(budget: int) -> Scheduler:
    subject = scheduler(
        *[generation(90 + i, group=90 + i) for i in range(4)], slots=8, budget=budget
    )
    while len(subject.running) < 4:
        subject.admit(0.0)
    return subject


@pytest.mark.parametrize(("budget", "admitted"), [(1, 1), (2, 2), (3, 3)])
def test_the_fewer_slots_are_taken_the_more_one_tick_admits(budget: int, admitted: int) -> None:
    free, half = scheduler(slots=8, budget=budget), half_taken(budget)
    for subject in (free, half):
        for i in range(3):
            subject.add(generation(i, group=i, source=8))

    assert len(free.admit(0.0)) == admitted
    assert len(half.admit(0.0)) == 1


def test_a_cancelled_one_in_the_middle_of_its_group_is_never_admitted() -> None:
    subject = scheduler(*[generation(i, group=1) for i in range(4)], slots=4)
    subject.cancel([1, 2])

    assert ids(subject.admit(0.0).values()) == [0, 3]


def test_rows_whose_call_raised_end_with_an_error() -> None:
    subject = scheduler(generation(1), generation(2))
    subject.admit(0.0)

    assert [each.finish for each in subject.fail([1])] == [Finish.ERROR]
    assert subject.reclaim() == [1]


def test_clearing_ends_everything_once() -> None:
    everything = [generation(i, group=i) for i in range(5)]
    subject = scheduler(*everything)
    subject.admit(0.0)

    assert ids(subject.clear(Finish.ERROR)) == ids(everything)

    assert subject.clear(Finish.ERROR) == []
    subject.reclaim()
    assert subject.idle
    assert repr(subject) == "<Scheduler 0 running, 0 waiting, 2 free>"


def burst(subject: Scheduler, *tokens: int) -> list[Generation]:
    return subject.commit([(0, Step(tokens, tuple(-float(t) for t in tokens)))], 1.0)


def test_several_tokens_are_appended_up_to_the_end() -> None:
    subject = scheduler(first := generation(1))
    subject.admit(0.0)

    assert burst(subject, 5, 6) == [first]
    assert (first.target, first.finish, first.first_token_at) == ([5, 6], None, 1.0)
    assert burst(subject, 7, EOS) == [first]
    assert (first.target, first.scores) == ([5, 6, 7], [-5.0, -6.0, -7.0])
    assert first.finish is Finish.STOP
    assert subject.generated == 3


@pytest.mark.parametrize(
    ("tokens", "options", "target", "finish"),
    [
        ((5, 6, 7), {}, [5, 6, 7], Finish.LENGTH),
        ((5, 6, 7, 8), {}, [5, 6, 7], Finish.LENGTH),
        ((5, 6, 7, EOS), {}, [5, 6, 7], Finish.LENGTH),
        ((5, 6, EOS), {}, [5, 6], Finish.STOP),
        ((5, 6, EOS), {"forced_eos": EOS}, [5, 6], Finish.LENGTH),
        ((5, EOS), {"forced_eos": EOS}, [5], Finish.STOP),
    ],
)
def test_several_tokens_never_exceed_the_limit(
    tokens: tuple[int, ...], options: dict[str, Any], target: list[int], finish: Finish
) -> None:
    together = scheduler(first := generation(1, length=3, **options))
    together.admit(0.0)
    burst(together, *tokens)

    singly = scheduler(second := generation(1, length=3, **options))
    singly.admit(0.0)
    for token in tokens:
        if second.finish is None:
            burst(singly, token)

    assert (first.target, first.finish) == (second.target, second.finish) == (target, finish)


def test_the_first_deadline_is_of_what_is_alive() -> None:
    early, late = generation(1, deadline=5.0), generation(2, deadline=7.0)
    subject = scheduler(early, late)
    assert subject.first_deadline() == 5.0
    subject.cancel([1])
    assert subject.first_deadline() == 7.0
    subject.cancel([2])
    assert subject.first_deadline() == math.inf


def test_streams_are_counted_while_they_run() -> None:
    quiet = generation(2)
    quiet.streams = False
    subject = scheduler(generation(1), quiet, generation(3), slots=2)
    subject.admit(0.0)
    assert subject.streaming == 1
    subject.cancel([2])
    subject.reclaim()
    subject.admit(0.0)
    assert subject.streaming == 2
    subject.clear(Finish.ERROR)
    assert subject.streaming == 0


def large_and_small() -> tuple[Scheduler, list[Generation], Generation]:
    """Return a document that fills all slots, and a short text that comes later."""
    document = [generation(number, group=1) for number in range(1, 41)]
    subject = scheduler(*document, slots=16)
    subject.admit(0.0)
    short = generation(100, group=100)
    subject.add(short)
    return subject, document, short


def test_a_large_group_alone_is_stepped_whole() -> None:
    subject, document, _ = large_and_small()
    assert subject.due() == [generation.slots[0] for generation in document[:16]]


def test_a_large_group_gives_way_to_a_small_one_and_goes_on_after_it() -> None:
    subject, document, short = large_and_small()
    step(subject, {each.slots[0]: EOS for each in document[:2]})
    subject.reclaim()

    assert ids(subject.admit(0.0).values()) == [17, 100], "they take turns"
    oldest = [document[number].slots[0] for number in (2, 3, 4)]
    assert subject.due() == [*oldest, short.slots[0]]

    step(subject, dict.fromkeys(oldest, EOS))
    subject.reclaim()
    assert subject.admit(0.0) == {}, "those that run have more rows than may be stepped"

    step(subject, {short.slots[0]: EOS})
    subject.reclaim()
    assert ids(subject.admit(0.0).values()) == [18, 19, 20, 21]
    assert len(subject.due()) == 16


def test_a_large_group_has_as_many_rows_in_a_step_as_all_others() -> None:
    subject, document, _ = large_and_small()
    step(subject, {document[number].slots[0]: EOS for number in range(7)})
    subject.reclaim()
    for number in range(101, 106):
        subject.add(generation(number, group=number))

    assert ids(subject.admit(0.0).values()) == [17, 100, 101, 102, 103, 104, 105]
    groups = [subject.running[name].group for name in subject.due()]
    assert sorted(groups) == [1] * 6 + [100, 101, 102, 103, 104, 105]


def test_two_large_groups_give_way_to_nobody() -> None:
    subject = scheduler(
        *(generation(number, group=1) for number in range(1, 9)),
        *(generation(number, group=2) for number in range(11, 19)),
        slots=16,
    )
    subject.admit(0.0)
    assert len(subject.due()) == 16


def test_a_group_that_grows_large_while_it_runs_gives_way_from_then_on() -> None:
    subject = scheduler(generation(1, group=1), generation(2, group=2), slots=16)
    subject.admit(0.0)
    for number in range(3, 13):
        subject.add(generation(number, group=1))
    assert ids(subject.admit(0.0).values()) == [3, 4]
    assert len(subject.due()) == 4


def test_everyone_ends_whatever_gives_way_to_whom() -> None:
    chance = random.Random(5)
    subject = scheduler(slots=16)
    waiting = [generation(n, group=chance.choice([1, 2, n, n + 1])) for n in range(1, 200)]
    ended = 0
    for _ in range(5000):
        if waiting and chance.random() < 0.3:
            subject.add(waiting.pop())
        subject.admit(0.0)
        due = subject.due()
        assert due or not subject.running
        ended += len(step(subject, {name: EOS for name in due if chance.random() < 0.2}))
        if chance.random() < 0.05:
            ended += len(subject.cancel([chance.randint(1, 199)]))
        subject.reclaim()

    assert (ended, subject.idle, subject.used) == (199, True, 0)
    assert subject._small_rows == 0
    assert not subject._members
