"""Generations that need several slots."""

import random
from typing import Any, Literal

import pytest

from model import Hypothesis, Step
from server.generation import Finish
from tests.server.test_scheduler import EOS, generation, ids, scheduler, step


def hypothesis(*tokens: int, finish: Literal["stop", "length"] = "stop") -> Hypothesis:
    alignments = tuple((float(token), 0.0) for token in tokens)
    return Hypothesis(tokens, -1.5, finish, tuple(-float(t) for t in tokens), alignments)


def test_a_search_holds_as_many_slots_as_beams_and_is_named_by_the_first() -> None:
    beam, plain = generation(1, beams=3), generation(2)
    subject = scheduler(beam, plain, slots=4)

    assert subject.admit(0.0) == {0: beam, 3: plain}

    assert (beam.slots, plain.slots) == ((0, 1, 2), (3,))
    assert subject.used == 4
    assert list(subject.running) == [0, 3]
    assert repr(subject) == "<Scheduler 2 running, 0 waiting, 0 free>"


def test_one_that_needs_more_slots_than_are_free_lets_nobody_pass() -> None:
    plain, beam = generation(1, group=1), generation(2, group=2, beams=4)
    later = [generation(i, group=i) for i in range(3, 6)]
    subject = scheduler(plain, beam, *later, slots=4)

    assert ids(subject.admit(0.0).values()) == [1]
    assert subject.admit(0.0) == {}, "three slots are free, and kept for who comes next"

    step(subject, {0: EOS})
    subject.reclaim()
    assert ids(subject.admit(0.0).values()) == [2]


@pytest.mark.parametrize("slots", [4, 7])
def test_nobody_starves_beside_an_endless_stream_of_small_ones(slots: int) -> None:
    beam = generation(0, group=0, beams=4)
    subject = scheduler(*[generation(i, group=i) for i in range(1, slots + 1)], slots=slots)
    subject.admit(0.0)
    subject.add(beam)
    for tick in range(1, 6):
        subject.add(generation(100 + tick, group=100 + tick))
        name = next(iter(subject.running))
        step(subject, {name: EOS})
        subject.reclaim()
        subject.admit(float(tick))
        if beam.slots:
            break

    assert len(beam.slots) == 4
    assert beam.admitted_at == 4.0


def test_groups_take_turns_whatever_each_of_theirs_needs() -> None:
    document = [generation(i, group=1, beams=2) for i in range(3)]
    subject = scheduler(*document, generation(10, group=2), generation(11, group=2), slots=6)

    assert ids(subject.admit(0.0).values()) == [0, 10, 1, 11]


@pytest.mark.parametrize("end", ["commit", "unhealthy", "cancel", "expire", "fail", "clear"])
def test_however_a_search_ends_all_its_slots_are_reclaimed_by_one_name(end: str) -> None:
    beam = generation(1, beams=3, deadline=5.0)
    subject = scheduler(generation(2), beam, slots=4)
    subject.admit(0.0)
    name = beam.slots[0]
    ends: dict[str, Any] = {
        "commit": lambda: subject.commit([(name, Step(hypotheses=(hypothesis(7),)))], 1.0),
        "unhealthy": lambda: subject.commit([(name, Step(is_healthy=False))], 1.0),
        "cancel": lambda: subject.cancel([1]),
        "expire": lambda: subject.expire(5.0),
        "fail": lambda: subject.fail([name]),
        "clear": lambda: subject.clear(Finish.ERROR),
    }

    assert beam in ends[end]()

    assert beam.finish is not None
    assert subject.used == 4, "not free before they have been cleaned"
    assert name in subject.reclaim()
    assert subject.used == (0 if end == "clear" else 1)
    assert subject.reclaim() == []
    assert subject.cancel([1]) == []


def test_a_search_that_waits_for_slots_can_be_given_up_and_holds_nobody_back() -> None:
    running, beam, plain = generation(1), generation(2, group=2, beams=2), generation(3, group=3)
    subject = scheduler(running, beam, plain, slots=2)
    subject.admit(0.0)

    assert subject.cancel([2]) == [beam]

    assert subject.reclaim() == []
    assert ids(subject.admit(0.0).values()) == [3]


def test_what_a_search_is_certain_of_grows_by_any_number_and_is_timed_by_its_first() -> None:
    subject = scheduler(only := generation(1, beams=2))
    subject.admit(0.0)
    aligned = ((0.5, 0.5), (1.0, 0.0))

    assert subject.commit([(0, Step())], 1.0) == [], "nothing to tell"
    assert subject.commit([(0, Step((7, 8), (-0.5, -0.25), aligned))], 2.0) == [only]

    assert (only.target, only.scores, only.alignments) == ([7, 8], [-0.5, -0.25], [*aligned])
    assert (only.first_token_at, only.finish) == (2.0, None)


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_the_best_hypothesis_ends_a_search_and_begins_with_what_was_certain(
    finish: Literal["stop", "length"],
) -> None:
    subject = scheduler(only := generation(1, beams=2, previews=True))
    subject.admit(0.0)
    subject.commit([(0, Step((7,), (-7.0,), ((7.0, 0.0),), preview=(8, 9)))], 1.0)
    found = (hypothesis(7, 8, finish=finish), hypothesis(7, 6, 5))

    assert subject.commit([(0, Step(hypotheses=found))], 2.0) == [only]

    assert only.finish is Finish(finish)
    assert (only.target, only.scores) == ([7, 8], [-7.0, -8.0])
    assert only.alignments == [(7.0, 0.0), (8.0, 0.0)]
    assert (only.hypotheses, only.preview) == (found, ())


def test_an_empty_best_hypothesis_ends_a_search_too() -> None:
    subject = scheduler(only := generation(1, beams=2))
    subject.admit(0.0)

    subject.commit([(0, Step(hypotheses=(hypothesis(),)))], 2.0)

    assert (only.finish, only.target, only.first_token_at) == (Finish.STOP, [], 2.0)


@pytest.mark.parametrize(("forced", "finish"), [(None, Finish.STOP), (EOS, Finish.LENGTH)])
def test_an_end_that_was_forced_at_the_limit_counts_as_the_limit(
    forced: int | None, finish: Finish
) -> None:
    subject = scheduler(only := generation(1, length=2, forced_eos=forced))
    subject.admit(0.0)

    step(subject, {0: 7})
    step(subject, {0: EOS})

    assert (only.target, only.finish) == ([7], finish)


def test_previews_are_kept_only_where_they_were_asked_for() -> None:
    asked, silent = generation(1, beams=2, previews=True), generation(2, beams=2)
    subject = scheduler(asked, silent, slots=4)
    subject.admit(0.0)
    previewing = Step(preview=(5, 6))

    assert subject.commit([(0, previewing), (2, previewing)], 1.0) == [asked]

    assert (asked.preview, silent.preview) == ((5, 6), ())


@pytest.mark.parametrize("seed", range(5))
def test_random_searches_all_end_and_no_slot_is_lost_or_given_out_twice(seed: int) -> None:
    chance = random.Random(seed)
    subject = scheduler(slots=8)
    waiting = [generation(i, group=i % 7, beams=chance.randint(1, 8)) for i in range(80)]
    everything, held = [*waiting], dict[int, tuple[int, ...]]()
    for tick in range(2000):
        for _ in range(min(len(waiting), chance.randint(0, 3))):
            subject.add(waiting.pop())
        for name, admitted in subject.admit(float(tick)).items():
            taken = {slot for slots in held.values() for slot in slots}
            assert not taken & {*admitted.slots}
            assert len(admitted.slots) == admitted.options.rows
            held[name] = admitted.slots
        if held and chance.random() < 0.5:
            name = chance.choice(list(subject.running) or [-1])
            if name >= 0 and chance.random() < 0.5:
                subject.commit([(name, Step(hypotheses=(hypothesis(3),)))], 1.0)
            else:
                subject.cancel([chance.choice(everything).id])
            for freed in subject.reclaim():
                del held[freed]
        if not waiting and subject.idle:
            break

    assert all(each.finish for each in everything)
    assert (subject.used, held) == (0, {})
