"""Turns on a device are taken in the order in which they were asked for."""

import threading
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry

from model import DecodingOptions
from server.device_lock import DeviceLock
from server.engine import Engine
from server.messages import Request, Update
from server.metrics import Metrics
from server.pacing import MOST_STEPS
from server.scheduler import Scheduler
from tests.server.fakes import EOS, EchoRunner, FakePending, echoes


def wait_for(is_true: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(2000):
        if is_true():
            return
        pause.wait(0.001)
    raise AssertionError("it did not become true")


def test_the_lock_is_handed_over_in_order_of_arrival() -> None:
    lock, order = DeviceLock(), []

    def take(number: int) -> None:
        with lock:
            order.append(number)

    threads = [threading.Thread(target=take, args=(n,)) for n in range(8)]
    with lock:
        for count, thread in enumerate(threads, 1):
            thread.start()
            wait_for(lambda count=count: lock.waiting == count)  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert order == list(range(8))
    assert repr(lock) == "<DeviceLock free, 0 waiting>"


def test_who_releases_and_asks_again_goes_behind_those_who_wait() -> None:
    lock, order = DeviceLock(), []

    def others() -> None:
        with lock:
            order.append("other")

    waiting = threading.Thread(target=others)
    with lock:
        waiting.start()
        wait_for(lambda: lock.waiting == 1)
    with lock:
        order.append("again")
    waiting.join()
    assert order == ["other", "again"]


def test_the_lock_is_freed_by_what_raises() -> None:
    lock = DeviceLock()
    with pytest.raises(RuntimeError, match="failed"), lock:
        raise RuntimeError("failed")
    with lock:
        pass


class Pair:
    """Two engines on one device; each of their launches waits until the other asks for its turn."""

    def __init__(self) -> None:
        self.lock = DeviceLock()
        self.order: list[str] = []  # who launched
        self.running: list[str] = []
        self.is_racing = False
        self.ended = {name: threading.Event() for name in "ab"}
        self.engines = {name: self._engine(name) for name in "ab"}

    def _engine(self, name: str) -> Engine:
        def publish(updates: Sequence[Update]) -> None:
            if any(update.finish for update in updates):
                self.ended[name].set()

        return Engine(
            Watched(self, name),
            Scheduler(2, EOS, source_tokens_per_tick=1000),
            publish,
            Metrics(CollectorRegistry(), "x").for_model(name),
            probe=Request((EOS,), DecodingOptions(max_new_tokens=1)),
            max_waiting=100,
            device=self.lock,
        )

    def step(self, name: str) -> None:
        assert self.running == [], "two models ran on one device"
        self.running.append(name)
        other = self.engines["b" if name == "a" else "a"]
        if self.is_racing:
            wait_for(lambda: self.lock.waiting == 1 or not other.held)
        self.order.append(name)
        self.running.remove(name)


class Watched(EchoRunner):
    def __init__(self, pair: Pair, name: str) -> None:
        super().__init__()
        self._pair, self._name = pair, name

    def launch(self, rows: Sequence[int], steps: int = 1) -> FakePending:
        if self._pair.is_racing:
            self._pair.step(self._name)
        return super().launch(rows, steps)


def test_two_engines_never_run_at_once_and_take_turns_launch_by_launch() -> None:
    pair = Pair()
    for engine in pair.engines.values():
        engine.start()
    wait_for(lambda: all(engine.is_healthy for engine in pair.engines.values()))
    request = Request(tuple(echoes(*range(1, 40))), DecodingOptions(max_new_tokens=50))
    with pair.lock:  # both wait for their first turn before either has one
        for engine in pair.engines.values():
            engine.submit([request], timeout_s=60)
        wait_for(lambda: pair.lock.waiting == 2)
        pair.is_racing = True
    for event in pair.ended.values():
        assert event.wait(20)
    for engine in pair.engines.values():
        engine.stop()
    order = "".join(pair.order)
    both = order.rstrip(order[-1]) + order[-1]  # one of them may have ended first
    assert len(both) >= 2 * (1 + 39 // MOST_STEPS)
    assert all(one != other for one, other in pairwise(both))
