"""Several steps in one launch: the same tokens, ends and measures as one by one."""

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from server.generation import Finish
from server.messages import Request
from server.pacing import MOST_STEPS
from tests.server.fakes import EchoRunner
from tests.server.test_engine import Log, request, running


def collected(*tokens: int, length: int = 50) -> Request:
    return replace(request(*tokens, length=length), streams=False)


def test_what_nobody_waits_for_token_by_token_takes_several_steps_at_once() -> None:
    runner = EchoRunner()
    with running(runner) as (engine, log):
        runner.is_interrupted.clear()
        (identity,) = engine.submit([collected(*range(1, 30))], 60)
        log.wait_for_ends(1)

    assert log.tokens[identity] == [*range(1, 30)]
    assert log.finishes == [(identity, Finish.STOP)]
    assert MOST_STEPS in runner.asked
    assert len(runner.asked) < 10


def test_a_burst_ends_each_request_where_single_steps_would() -> None:
    targets = {
        (1, 2, 3): Finish.STOP,
        tuple(range(1, 20)): Finish.STOP,
        tuple(range(1, 11)): Finish.LENGTH,
        (): Finish.STOP,
    }
    with running(EchoRunner(), slots=4) as (engine, log):
        sent = [collected(*t, length=10 if f is Finish.LENGTH else 50) for t, f in targets.items()]
        ids = engine.submit(sent, 60)
        log.wait_for_ends(4)

    assert [tuple(log.tokens[i]) for i in ids] == list(targets)
    assert dict(log.finishes) == dict(zip(ids, targets.values(), strict=True))


@pytest.mark.parametrize("streams", [True, False])
def test_steps_come_together_once_it_is_known_how_short_they_are(streams: bool) -> None:
    runner = EchoRunner()
    with running(runner, clock=lambda: 0.0) as (engine, log):  # they take no time at all
        runner.may_step.clear()
        engine.submit([collected(*range(1, 30)), replace(request(1, 2, 3), streams=streams)], 60)
        runner.may_step.set()
        log.wait_for_ends(2)

    asked = runner.asked[1:]  # after the probe's
    assert asked[0] == 1
    assert MOST_STEPS in asked
    assert dict(log.tokens) == {1: [*range(1, 30)], 2: [1, 2, 3]}


def test_nobody_waits_for_a_slot_longer_than_a_few_short_steps() -> None:
    runner = EchoRunner()
    with running(runner, slots=1, clock=lambda: 0.0) as (engine, log):
        runner.may_step.clear()
        engine.submit([collected(1, 2, 3), collected(*range(1, 30))], 60)
        runner.may_step.set()
        log.wait_for_ends(2)

    assert runner.asked[1:3] == [1, 3]  # the first tells how short they are
    assert set(runner.asked[3:]) == {MOST_STEPS}


@pytest.mark.parametrize("call", ["submit", "cancel"])
def test_a_burst_stops_after_its_step_for_whoever_arrives_or_leaves(call: str) -> None:
    runner = EchoRunner()
    with running(runner) as (engine, log):
        (first,) = engine.submit([collected(*[1] * 20_000, length=20_000)], 600)
        reached: list[int] = []

        def act(launch: int) -> None:
            if reached:
                return
            reached.extend((launch, len(runner.read[0])))
            if call == "submit":
                engine.submit([collected(5)], 60)
            else:
                engine.cancel([first])

        runner.before_next = act
        log.wait_for_ends(1)
        finishes = dict(log.finishes)
        if call == "submit":
            engine.cancel([first])
            log.wait_for_ends(2)

    launch, tokens = reached
    assert runner.asked[launch - 1] == MOST_STEPS
    assert runner.taken[launch - 1] == 2  # the one that was under way, and that after which it came
    if call == "cancel":
        assert finishes == {first: Finish.CANCELLED}
        assert len(log.tokens[first]) == tokens + 1
    else:
        assert list(finishes.values()) == [Finish.STOP]


def test_a_deadline_is_met_though_steps_come_in_bursts() -> None:
    runner = EchoRunner()
    now = [0.0]
    with running(runner, clock=lambda: now[0]) as (engine, log):
        runner.before_next = lambda launch: now.__setitem__(0, now[0] + 0.001)
        (identity,) = engine.submit([collected(*[1] * 20_000, length=20_000)], timeout_s=1.0)
        runner.may_step.clear()
        engine.submit([collected(1)], 60)
        now[0] = 0.97
        runner.may_step.set()
        log.wait_until(lambda log: bool(log.finishes))
        now[0] = 1.0
        log.wait_until(lambda log: (identity, Finish.TIMEOUT) in log.finishes)


def test_a_sick_row_in_a_burst_takes_no_other_with_it() -> None:
    with running(EchoRunner(sick=frozenset({13})), slots=3) as (engine, log):
        ids = engine.submit([collected(1, 2), collected(3, 13, 4), collected(5, 6)], 60)
        log.wait_for_ends(3)

    assert dict(log.finishes) == {
        ids[0]: Finish.STOP,
        ids[1]: Finish.ERROR,
        ids[2]: Finish.STOP,
    }


def test_bursts_are_measured_as_their_steps() -> None:
    registry = CollectorRegistry()
    with running(EchoRunner(), registry=registry) as (engine, log):
        engine.submit([collected(1, 2), collected(*range(1, 20))], 60)
        log.wait_for_ends(2)

    def value(name: str) -> float | None:
        return registry.get_sample_value(f"stele_{name}", {"model": "echo"})

    assert value("target_tokens_total") == 21
    assert value("decoder_batch_size_count") == 20
    assert value("decoder_batch_size_sum") == 23
    assert value("inter_token_seconds_count") == 19
    assert value("time_to_first_token_seconds_count") == 2


def test_streams_are_paced_where_there_are_many() -> None:
    now = [0.0]
    runner = EchoRunner()
    log_of: list[Log] = []
    with running(runner, slots=8, clock=lambda: now[0]) as (engine, log):
        log_of.append(log)
        ids = engine.submit([request(*range(1, 9))] * 8, 60)
        log.wait_for_ends(8)

    updates = {i: [len(u.tokens) for u in log.updates if u.id == i] for i in ids}
    # The clock stands still: the first token at once, all others with the end.
    assert all(counts == [1, 7] for counts in updates.values())
    assert all(log.tokens[i] == [*range(1, 9)] for i in ids)
