"""Searches in the engine: requests that hold several slots."""

import random
import threading
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from server.errors import QueueFull, TooLarge
from server.generation import Finish
from server.messages import Update
from tests.server.fakes import EchoRunner
from tests.server.test_engine import request, running


def test_searches_and_others_share_a_batch_and_each_gets_its_own() -> None:
    targets = [[5, 6, 7], [8], [9, 10, 11, 12], [13, 14]]
    beams = [3, 1, 4, 2]
    runner = EchoRunner()
    with running(runner, slots=6) as (engine, log):
        asked = [request(*t, beams=b) for t, b in zip(targets, beams, strict=True)]
        ids = engine.submit(asked, timeout_s=60)
        log.wait_for_ends(4)

    assert [log.tokens[i] for i in ids] == targets
    assert (runner.rows, runner.held) == ({}, {})
    best = {u.id: u.hypotheses[0].tokens for u in log.updates if u.hypotheses}
    assert best == {ids[0]: (5, 6, 7), ids[2]: (9, 10, 11, 12), ids[3]: (13, 14)}


def test_a_request_of_more_rows_than_there_are_is_refused_before_any_of_it_is_accepted() -> None:
    with running(EchoRunner(), slots=4) as (engine, log):
        with pytest.raises(TooLarge, match=r"5 hypotheses at once exceed .* limit of 4") as refusal:
            engine.submit([request(1), request(2, beams=5)], 60)
        assert refusal.value.status == 413
        assert engine.held == 0
        engine.submit([request(3, beams=4)], 60)
        log.wait_for_ends(1)

    assert [*log.tokens.values()] == [[3]]


@pytest.mark.parametrize("call", ["admit", "launch"])
def test_a_search_the_model_cannot_bear_takes_no_other_with_it(call: str) -> None:
    runner = EchoRunner(fails=lambda name, _, tokens: name == call and 13 in tokens)
    with running(runner, slots=8) as (engine, log):
        ids = engine.submit(
            [request(1, 2, beams=3), request(13, 4, beams=4), request(5, 6), request(7, beams=2)],
            60,
        )
        log.wait_for_ends(4)
        assert engine.is_healthy

    ended = dict(log.finishes)
    assert ended.pop(ids[1]) is Finish.ERROR
    assert set(ended.values()) == {Finish.STOP}
    assert {i: log.tokens[i] for i in ended} == {ids[0]: [1, 2], ids[2]: [5, 6], ids[3]: [7]}
    assert runner.held == {}


@pytest.mark.parametrize("seed", range(6))
def test_every_search_ends_once_under_random_failures(seed: int) -> None:
    chance = random.Random(seed)
    runner = EchoRunner(fails=lambda *_: chance.random() < 0.3, sick=frozenset({7}))
    targets = [[chance.randint(1, 9) for _ in range(chance.randint(1, 6))] for _ in range(40)]
    with running(runner, slots=6) as (engine, log):
        asked = [request(*t, beams=chance.randint(1, 6)) for t in targets]
        ids = [i for one in asked for i in engine.submit([one], 60)]
        engine.cancel(chance.sample(ids, 8))
        log.wait_for_ends(40)

    assert sorted(i for i, _ in log.finishes) == ids
    assert runner.held == {}
    for identity, target in zip(ids, targets, strict=True):
        if dict(log.finishes)[identity] is Finish.STOP:
            assert log.tokens[identity] == target


def test_an_unhealthy_search_takes_only_its_own_request() -> None:
    with running(EchoRunner(sick=frozenset({13})), slots=8) as (engine, log):
        ids = engine.submit([request(1, 2, beams=3), request(3, 4, 13, 5, beams=3)], 60)
        log.wait_for_ends(2)

    assert dict(log.finishes) == {ids[0]: Finish.STOP, ids[1]: Finish.ERROR}
    assert log.tokens[ids[1]] == [3, 4]


def test_a_search_that_is_given_up_late_frees_all_its_rows() -> None:
    registry, runner = CollectorRegistry(), EchoRunner()
    with running(runner, slots=4, registry=registry) as (engine, log):
        (given_up,) = engine.submit([request(*[1] * 5_000, length=20_000, beams=4)], 60)
        log.wait_until(lambda log: len(log.tokens.get(given_up, [])) > 3)
        (waiting,) = engine.submit([request(5, 6, beams=4)], 60)
        engine.cancel([given_up])
        log.wait_for_ends(2)

    assert dict(log.finishes) == {given_up: Finish.CANCELLED, waiting: Finish.STOP}
    assert runner.held == {}
    assert registry.get_sample_value("stele_slots_used", {"model": "echo"}) == 0


def test_stopping_lets_searches_in_flight_and_in_the_queue_end() -> None:
    runner = EchoRunner()
    with running(runner, slots=4) as (engine, log):
        runner.may_step.clear()
        ids = engine.submit([request(1, 2, 3, beams=b) for b in (4, 3, 2, 4)], 60)
        stopping = threading.Thread(target=engine.stop)
        stopping.start()
        runner.may_step.set()
        stopping.join(timeout=10)

    assert dict(log.finishes) == dict.fromkeys(ids, Finish.STOP)
    assert {tuple(log.tokens[i]) for i in ids} == {(1, 2, 3)}
    assert runner.held == {}


def test_rows_and_tokens_of_searches_are_measured() -> None:
    registry, runner = CollectorRegistry(), EchoRunner()

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"stele_{name}", {"model": "echo", **labels})

    used: list[tuple[float | None, float | None]] = []
    with running(runner, slots=8, registry=registry) as (engine, log):
        publish = engine._publish

        def watched(updates: Sequence[Update]) -> None:
            engine._measure()
            used.append((value("slots_used"), value("requests_running")))
            publish(updates)

        engine._publish = watched
        engine.submit([request(1, 2, 3, beams=4), request(4, 5, 6, beams=3)], 60)
        log.wait_for_ends(2)

    assert used == [(7, 2), (7, 0)], "held until they are cleaned"
    assert value("decoder_batch_size_count") == 4
    assert value("decoder_batch_size_sum") == 4 * 7
    assert value("target_tokens_total") == 6
    assert value("time_to_first_token_seconds_count") == 2
    assert (value("requests_running"), value("slots_used"), value("requests_waiting")) == (0, 0, 0)


def test_previews_are_published_where_they_were_asked_for() -> None:
    with running(EchoRunner(), slots=4) as (engine, log):
        asked, silent = engine.submit(
            [request(1, 2, 3, beams=2, previews=True), request(1, 2, 3, beams=2)], 60
        )
        log.wait_for_ends(2)

    def seen(identity: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        return [(u.tokens, u.preview) for u in log.updates if u.id == identity]

    assert seen(asked) == [((), (1,)), ((1, 2), ()), ((), (3,)), ((3,), ())]
    assert seen(silent) == [((1, 2), ()), ((3,), ())]


def test_what_waits_for_several_slots_counts_against_the_queue() -> None:
    runner = EchoRunner()
    with running(runner, slots=4, max_waiting=3) as (engine, log):
        runner.may_step.clear()
        engine.submit([request(i, beams=4) for i in range(1, 5)], 60)
        with pytest.raises(QueueFull, match="3 segments wait already"):
            engine.submit([request(5)], 60)
        runner.may_step.set()
        log.wait_for_ends(4)
        engine.submit([request(6)], 60)
        log.wait_for_ends(5)
