import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from model import DecodingOptions
from server.engine import Engine
from server.errors import Draining, QueueFull
from server.generation import Finish
from server.messages import Request, Update
from server.metrics import Metrics
from server.scheduler import Scheduler
from tests.server.fakes import EOS, EchoRunner, echoes


class Log:
    """Collects what the engine publishes."""

    def __init__(self) -> None:
        self.tokens: dict[int, list[int]] = {}
        self.finishes: list[tuple[int, Finish]] = []
        self.updates: list[Update] = []
        self._changed = threading.Condition()

    def __call__(self, updates: Sequence[Update]) -> None:
        with self._changed:
            self.updates += updates
            for update in updates:
                self.tokens.setdefault(update.id, []).extend(update.tokens)
                if update.finish is not None:
                    self.finishes.append((update.id, update.finish))
            self._changed.notify_all()

    def wait_until(self, is_true: Callable[["Log"], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: is_true(self), timeout=10)

    def wait_for_ends(self, count: int) -> None:
        self.wait_until(lambda log: len(log.finishes) >= count)


def request(*tokens: int, length: int = 50, beams: int = 1, previews: bool = False) -> Request:
    options = DecodingOptions(max_new_tokens=length, num_beams=beams)
    return Request(tuple(echoes(*tokens)), options, previews=previews)


@contextmanager
def running(
    runner: EchoRunner,
    *,
    slots: int = 2,
    max_waiting: int = 100,
    registry: CollectorRegistry | None = None,
    clock: Callable[[], float] | None = None,
) -> Iterator[tuple[Engine, Log]]:
    log = Log()
    metrics = Metrics(registry or CollectorRegistry(), "x").for_model("echo")
    optional: dict[str, Any] = {} if clock is None else {"clock": clock}
    engine = Engine(
        runner,
        Scheduler(slots, EOS, source_tokens_per_tick=1000),
        log,
        metrics,
        probe=request(),
        max_waiting=max_waiting,
        **optional,
    )
    engine.start()
    try:
        yield engine, log
    finally:
        runner.may_step.set()
        engine.stop()


def test_every_request_gets_its_own_tokens_back() -> None:
    targets = [[5], [6, 7, 8], [9, 9], [4, 3]]
    with running(EchoRunner()) as (engine, log):
        ids = engine.submit([request(*target) for target in targets], timeout_s=60)
        log.wait_for_ends(4)

    assert [log.tokens[i] for i in ids] == targets
    assert Counter(f for _, f in log.finishes) == {Finish.STOP: 4}
    assert repr(engine) == "<Engine closed, 0 held, <Scheduler 0 running, 0 waiting, 2 free>>"


def test_what_does_not_stream_is_published_once_and_whole() -> None:
    batches: list[int] = []
    with running(EchoRunner()) as (engine, log):
        publish = engine._publish

        def counted(updates: Sequence[Update]) -> None:
            batches.extend(len(update.tokens) for update in updates)
            publish(updates)

        engine._publish = counted
        engine.submit([replace(request(1, 2, 3), streams=False)], 60)
        log.wait_for_ends(1)

    assert batches == [3]
    assert list(log.tokens.values()) == [[1, 2, 3]]


def test_requests_join_a_running_batch() -> None:
    runner = EchoRunner()
    with running(runner, slots=4) as (engine, log):
        (first,) = engine.submit([request(*[1] * 20_000, length=20_000)], 60)
        log.wait_until(lambda log: len(log.tokens.get(first, [])) > 3)
        (second,) = engine.submit([request(2, 2)], 60)
        log.wait_for_ends(1)
        assert log.finishes == [(second, Finish.STOP)]
        engine.cancel([first])
        log.wait_for_ends(2)

    assert set(runner.steps) == {1, 2}


def test_a_model_that_gives_no_number_is_not_healthy() -> None:
    with running(EchoRunner(sick=frozenset({EOS, 5}))) as (engine, log):
        engine.submit([request(5)], 60)
        log.wait_for_ends(1)
        assert not engine.is_healthy

    assert [finish for _, finish in log.finishes] == [Finish.ERROR]


def test_a_continuation_is_accepted_where_new_work_is_refused() -> None:
    runner = EchoRunner()
    with running(runner, slots=1, max_waiting=1) as (engine, log):
        runner.may_step.clear()
        ids = engine.submit([request(1), request(2)], 60)
        with pytest.raises(QueueFull):
            engine.submit([request(3)], 60)
        ids += engine.submit([request(4)], 60, group=ids[0])
        runner.may_step.set()
        log.wait_for_ends(3)

    assert [log.tokens[i] for i in ids] == [[1], [2], [4]]


@pytest.mark.parametrize("call", ["admit", "launch"])
@pytest.mark.parametrize("bad", range(5))
def test_a_request_the_model_cannot_bear_takes_no_other_with_it(call: str, bad: int) -> None:
    poison = 13
    targets = [[i + 20, i + 40] for i in range(5)]
    targets[bad] = [poison, poison]
    runner = EchoRunner(fails=lambda name, _, tokens: name == call and poison in tokens)
    with running(runner, slots=3) as (engine, log):
        ids = engine.submit([request(*target) for target in targets], 60)
        log.wait_for_ends(5)
        assert engine.is_healthy

    ended = dict(log.finishes)
    assert sorted(i for i, _ in log.finishes) == ids
    assert ended.pop(ids[bad]) is Finish.ERROR
    assert set(ended.values()) == {Finish.STOP}
    assert [log.tokens[i] for i in ended] == [t for t in targets if poison not in t]


@pytest.mark.parametrize("broken_call", range(1, 40))
def test_every_accepted_request_ends_once_whichever_call_fails(broken_call: int) -> None:
    """A call that fails as a whole is repeated row by row, so nothing is even lost."""
    targets = [[i + 1] * (i % 4 + 1) for i in range(12)]
    runner = EchoRunner(fails=lambda _, number, __: number == broken_call)
    with running(runner, slots=3) as (engine, log):
        ids = engine.submit([request(*target) for target in targets], 60)
        log.wait_for_ends(12)

    assert sorted(i for i, _ in log.finishes) == ids
    assert not runner.rows
    assert {finish for _, finish in log.finishes} == {Finish.STOP}
    assert [log.tokens[i] for i in ids] == targets


@pytest.mark.parametrize("seed", range(8))
def test_every_accepted_request_ends_once_under_random_failures(seed: int) -> None:
    chance = random.Random(seed)
    runner = EchoRunner(fails=lambda *_: chance.random() < 0.3, sick=frozenset({7}))
    targets = [[chance.randint(1, 9) for _ in range(chance.randint(1, 6))] for _ in range(40)]
    with running(runner, slots=4) as (engine, log):
        ids = [i for t in targets for i in engine.submit([request(*t)], 60)]
        engine.cancel(chance.sample(ids, 8))
        log.wait_for_ends(40)

    assert sorted(i for i, _ in log.finishes) == ids
    assert not runner.rows


def test_an_unhealthy_row_takes_only_its_own_request() -> None:
    with running(EchoRunner(sick=frozenset({13})), slots=3) as (engine, log):
        ids = engine.submit([request(1, 2), request(3, 13, 4), request(5, 6)], 60)
        log.wait_for_ends(3)

    assert dict(log.finishes) == {
        ids[0]: Finish.STOP,
        ids[1]: Finish.ERROR,
        ids[2]: Finish.STOP,
    }
    assert log.tokens[ids[1]] == [3]


def test_the_engine_is_unhealthy_while_every_call_fails_and_recovers_by_itself() -> None:
    is_broken = threading.Event()
    runner = EchoRunner(fails=lambda *_: is_broken.is_set())
    with running(runner) as (engine, log):
        engine.submit([request(1)], 60)
        log.wait_for_ends(1)
        assert engine.is_healthy

        is_broken.set()
        engine.submit([request(2), request(3)], 60)
        log.wait_for_ends(3)
        engine.submit([request(4)], 60)
        log.wait_for_ends(4)
        assert not engine.is_healthy

        is_broken.clear()
        engine.submit([request(5)], 60)
        log.wait_for_ends(5)
        assert engine.is_healthy

    assert [f for _, f in log.finishes] == [Finish.STOP, *[Finish.ERROR] * 3, Finish.STOP]


def test_a_cancelled_request_gives_its_slot_back() -> None:
    runner = EchoRunner()
    with running(runner, slots=1) as (engine, log):
        runner.may_step.clear()
        (given_up,) = engine.submit([request(*range(1, 40))], 60)
        (waiting,) = engine.submit([request(5)], 60)
        engine.cancel([given_up])
        runner.may_step.set()
        log.wait_for_ends(2)

    assert dict(log.finishes) == {given_up: Finish.CANCELLED, waiting: Finish.STOP}
    assert len(log.tokens[given_up]) <= 1
    assert not runner.rows


def test_cancelling_the_only_request_frees_its_row_at_once() -> None:
    runner = EchoRunner()
    with running(runner, slots=1) as (engine, log):
        runner.may_step.clear()
        engine.cancel(engine.submit([request(*range(1, 40))], 60))
        runner.may_step.set()
        log.wait_for_ends(1)
        engine.submit([request(6)], 60)
        log.wait_for_ends(2)

    assert not runner.rows


def test_a_request_past_its_deadline_ends_whether_it_runs_or_waits() -> None:
    now = [0.0]
    runner = EchoRunner()
    with running(runner, slots=1, clock=lambda: now[0]) as (engine, log):
        runner.may_step.clear()
        ids = engine.submit([request(*range(1, 40)), request(5)], timeout_s=10)
        now[0] = 10.0
        runner.may_step.set()
        log.wait_for_ends(2)

    assert dict(log.finishes) == dict.fromkeys(ids, Finish.TIMEOUT)


def test_a_full_engine_refuses_at_the_door_and_recovers() -> None:
    runner = EchoRunner()
    with running(runner, slots=1, max_waiting=2) as (engine, log):
        runner.may_step.clear()
        engine.submit([request(1), request(2), request(3)], 60)
        with pytest.raises(QueueFull, match="2 segments wait already; retry in 1 s"):
            engine.submit([request(4)], 60)
        runner.may_step.set()
        log.wait_for_ends(3)
        engine.submit([request(5)], 60)
        log.wait_for_ends(4)


def test_an_idle_engine_accepts_more_than_may_wait() -> None:
    with running(EchoRunner(), slots=1, max_waiting=2) as (engine, log):
        engine.submit([request(1)] * 20, 60)
        log.wait_for_ends(20)


def test_stopping_ends_what_was_accepted_and_refuses_what_is_new() -> None:
    runner = EchoRunner()
    with running(runner) as (engine, log):
        ids = engine.submit([request(1, 2, 3)] * 10, 60)
        engine.stop()
        with pytest.raises(Draining):
            engine.submit([request(4)], 60)

    assert dict(log.finishes) == dict.fromkeys(ids, Finish.STOP)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # intended
def test_when_the_thread_dies_nobody_is_left_waiting() -> None:
    class Dying(EchoRunner):
        def release(self, rows: Sequence[int]) -> None:
            if rows and self.calls > 2:
                raise SystemExit
            super().release(rows)

    with running(Dying(), slots=1) as (engine, log):
        ids = engine.submit([request(1), request(2), request(3)], 60)
        log.wait_for_ends(3)
        engine.stop()
        assert not engine.is_alive

    assert sorted(i for i, _ in log.finishes) == ids
    with pytest.raises(Draining):
        engine.submit([request(1)], 60)


def test_who_is_awaited_joins_later_and_nobody_waits_for_it() -> None:
    registry = CollectorRegistry()
    runner = EchoRunner(late={7: 3, 8: 10**9})
    with running(runner, slots=4, registry=registry) as (engine, log):
        first, second, never = engine.submit([request(1, 2), request(7, 9), request(8)], 60)
        log.wait_for_ends(2)
        engine.cancel([never])
        log.wait_for_ends(3)
        engine.submit([request(5, 5, 5, 5)] * 4, 60)  # in the slots of all of them
        log.wait_for_ends(7)

    assert log.finishes[:3] == [
        (first, Finish.STOP),
        (second, Finish.STOP),
        (never, Finish.CANCELLED),
    ]
    assert (log.tokens[first], log.tokens[second], log.tokens[never]) == ([1, 2], [7, 9], [])
    rows = registry.get_sample_value("stele_decoder_batch_size_sum", {"model": "echo"})
    assert rows == 3 + 3 + 4 * 5


def test_nobody_is_admitted_behind_more_than_a_ticks_budget_that_is_still_encoded() -> None:
    runner = EchoRunner(encoding=10_000)
    with running(runner) as (engine, log):
        (first,) = engine.submit([request(1)], 60)
        engine.cancel([first])
        log.wait_for_ends(1)
        assert log.updates[0].timings is not None
        assert log.updates[0].timings.queue_s is None, "it was admitted"
        runner.encoding = 0
        engine.submit([request(2)], 60)
        log.wait_for_ends(2)

    assert [finish for _, finish in log.finishes] == [Finish.CANCELLED, Finish.STOP]


def test_a_step_that_fails_for_all_but_the_awaited_lets_the_engine_be_probed() -> None:
    runner = EchoRunner(late={8: 10**9}, sick=frozenset({4}))
    with running(runner) as (engine, log):
        ids = engine.submit([request(4), request(8)], 60)
        log.wait_for_ends(1)
        assert log.finishes == [(ids[0], Finish.ERROR)]
        calls = runner.calls
        engine.cancel(ids[1:])
        log.wait_for_ends(2)
        engine.submit([request(1)], 60)
        log.wait_for_ends(3)

    assert runner.calls >= calls + 2 + 3  # the probe is admitted and stepped before the next


def test_what_happened_is_measured() -> None:
    registry = CollectorRegistry()
    with running(EchoRunner(), registry=registry) as (engine, log):
        engine.submit([request(1, 2), request(3, 4)], 60)
        log.wait_for_ends(2)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"stele_{name}", {"model": "echo", **labels})

    assert value("slots") == 2
    assert value("source_tokens_total") == 6
    assert value("target_tokens_total") == 4
    assert value("decoder_batch_size_count") == 3
    assert value("decoder_batch_size_sum") == 6
    assert value("decoder_batch_size_bucket", le="2.0") == 3
    assert value("encoder_batch_size_sum") == 2
    assert value("time_to_first_token_seconds_count") == 2
    assert value("inter_token_seconds_count") == 2
    assert value("queue_seconds_count") == 2
    assert (value("requests_running"), value("slots_used"), value("requests_waiting")) == (0, 0, 0)
