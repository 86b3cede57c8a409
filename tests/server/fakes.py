"""A model that repeats its source, one token a step, and fails where it is told to."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from model import Arrival, Step

EOS = 0


@dataclass
class FakeLatents:
    hits: int = 0
    misses: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class FakePending:
    _result: list[Step]

    def result(self) -> list[Step]:
        return self._result


@dataclass
class EchoRunner:
    """`fails(call, number, tokens)` decides whether a call raises; numbers count all calls."""

    fails: Callable[[str, int, list[int]], bool] = lambda call, number, tokens: False
    sick: frozenset[int] = frozenset()  # tokens whose row is unhealthy
    latents: FakeLatents = field(default_factory=FakeLatents)
    may_step: threading.Event = field(default_factory=threading.Event)
    rows: dict[int, list[int]] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)  # batch sizes
    calls: int = 0

    def __post_init__(self) -> None:
        self.may_step.set()

    def _count(self, call: str, tokens: list[int]) -> None:
        self.calls += 1
        if self.fails(call, self.calls, tokens):
            raise RuntimeError(f"{call} failed")

    def admit(self, arrivals: Sequence[Arrival]) -> None:
        self._count("admit", [token for a in arrivals for token in a.source])
        for arrival in arrivals:
            assert arrival.rows[0] not in self.rows, "a row was given out twice"
            self.rows[arrival.rows[0]] = [*arrival.source]
            self.latents.misses += 1

    def launch(self, rows: Sequence[int]) -> FakePending:
        self.may_step.wait(timeout=10)
        tokens = [self.rows[row][0] for row in rows]
        self._count("launch", tokens)
        self.steps.append(len(rows))
        for row in rows:
            del self.rows[row][0]
        return FakePending([self._step(token) for token in tokens])

    def _step(self, token: int) -> Step:
        if token in self.sick:
            return Step(is_healthy=False)
        return Step((token,), (-float(token),))

    def release(self, rows: Sequence[int]) -> None:
        for row in rows:
            del self.rows[row]


def echoes(*tokens: int) -> Iterator[int]:
    """Return the source that makes the fake generate `tokens`, then its end."""
    yield from tokens
    yield EOS
