"""A model that repeats its source, one token a step, and fails where it is told to."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from model import Arrival, Hypothesis, Step

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
    """`fails(call, number, tokens)` decides whether a call raises; numbers count all calls.

    What holds several rows is a search: two tokens become certain in every second step, and it ends
    with two hypotheses, the source and its reverse.
    """

    fails: Callable[[str, int, list[int]], bool] = lambda call, number, tokens: False
    sick: frozenset[int] = frozenset()  # tokens whose row is unhealthy
    latents: FakeLatents = field(default_factory=FakeLatents)
    may_step: threading.Event = field(default_factory=threading.Event)
    rows: dict[int, list[int]] = field(default_factory=dict)  # what is to come, by first row
    read: dict[int, list[int]] = field(default_factory=dict)  # what has come
    held: dict[int, tuple[int, ...]] = field(default_factory=dict)  # all rows, by the first
    steps: list[int] = field(default_factory=list)  # batch sizes of launches
    asked: list[int] = field(default_factory=list)  # how many steps each launch might take
    taken: list[int] = field(default_factory=list)  # and how many it took
    before_next: Callable[[int], None] = lambda launch: None  # within a launch, not the first step
    is_interrupted: threading.Event = field(default_factory=threading.Event)
    calls: int = 0
    late: dict[int, int] = field(
        default_factory=dict
    )  # launches until a source is encoded, by its first token
    encoding: int = 0

    def __post_init__(self) -> None:
        self.may_step.set()

    def _count(self, call: str, tokens: list[int]) -> None:
        self.calls += 1
        if self.fails(call, self.calls, tokens):
            raise RuntimeError(f"{call} failed")

    def admit(self, arrivals: Sequence[Arrival]) -> None:
        self._count("admit", [token for a in arrivals for token in a.source])
        for arrival in arrivals:
            used = {row for rows in self.held.values() for row in rows}
            assert not used & {*arrival.rows}, "a row was given out twice"
            assert len(arrival.rows) == arrival.options.rows
            name = arrival.rows[0]
            self.rows[name], self.read[name] = [*arrival.source], []
            self.held[name] = arrival.rows
            self.latents.misses += 1

    def launch(self, rows: Sequence[int], steps: int = 1) -> FakePending:
        self.may_step.wait(timeout=10)
        awaited = [row for row in rows if self._is_awaited(row)]
        if awaited:
            gained = dict.fromkeys(awaited, Step(is_awaited=True))
            others = [row for row in rows if row not in gained]
            gained |= zip(others, self.launch(others).result() if others else [], strict=True)
            return FakePending([gained[row] for row in rows])
        tokens = [self.rows[row][0] for row in rows]
        self._count("launch", tokens)
        self.steps.append(len(rows))
        self.asked.append(steps)
        self.taken.append(1)
        found = [self._advanced(row) for row in rows]
        for _ in range(steps - 1):
            if self.is_interrupted.is_set() or any(len(self.held[row]) > 1 for row in rows):
                break
            self.before_next(len(self.asked))
            self.taken[-1] += 1
            for place, row in enumerate(rows):
                before = found[place]
                if before.is_healthy and before.tokens[-1] != EOS:
                    found[place] = _joined(before, self._advanced(row))
        self.is_interrupted.clear()
        return FakePending(found)

    def _is_awaited(self, row: int) -> bool:
        first = self.rows[row][0]
        left = 0 if self.read[row] else self.late.get(first, 0)
        self.late[first] = max(left - 1, 0)
        return left > 0

    def interrupt(self) -> None:
        self.is_interrupted.set()

    def _advanced(self, row: int) -> Step:
        self.read[row].append(self.rows[row].pop(0))
        return self._step(row)

    def _step(self, row: int) -> Step:
        read = self.read[row]
        if read[-1] in self.sick:
            return Step(is_healthy=False)
        if len(self.held[row]) == 1:
            return Step((read[-1],), (-float(read[-1]),))
        if read[-1] == EOS:
            found = tuple(read[:-1])
            return Step(hypotheses=(_hypothesis(found), _hypothesis(found[::-1])))
        if len(read) % 2:
            return Step(preview=(read[-1],))
        return Step(tuple(read[-2:]), tuple(-float(token) for token in read[-2:]))

    def release(self, rows: Sequence[int]) -> None:
        for row in rows:
            del self.rows[row], self.read[row], self.held[row]


def _joined(first: Step, second: Step) -> Step:
    tokens, scores = first.tokens + second.tokens, first.scores + second.scores
    return Step(tokens, scores, is_healthy=second.is_healthy)


def _hypothesis(tokens: tuple[int, ...]) -> Hypothesis:
    return Hypothesis(tokens, -1.0, "stop", tuple(-float(token) for token in tokens), ())


def echoes(*tokens: int) -> Iterator[int]:
    """Return the source that makes the fake generate `tokens`, then its end."""
    yield from tokens
    yield EOS
