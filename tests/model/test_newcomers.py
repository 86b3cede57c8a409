"""Sources encoded beside the steps: who waits, who does not, and that nothing else differs."""

import random
from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from model import Arrival, DecodingOptions, Runner, Step
from model.latent_cache import LatentCache, Source
from model.native.cache import NativeCache, SourceState
from model.native.machine import NativeMachine
from model.native.network import NativeNetwork
from model.newcomers import Newcomers
from tests.model.driver import Outcome, Request, random_requests, run_alone, run_together
from tests.model.native import KINDS, NEEDS_LIBRARY, random_tokens
from tests.model.networks import PAD, tiny_network

AWAITED, FAILED = Step(is_awaited=True), Step(is_healthy=False)
SOURCES = random_tokens(5, (9, 1, 17, 4, 30, 8), 70)
OPTIONS = DecodingOptions(max_new_tokens=8, min_new_tokens=8)
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


class Machine:
    """Encodes what it is told to, and remembers when it was asked to help."""

    def __init__(self, helps: Sequence[Source] = ()) -> None:
        self.states: dict[Source, SourceState] = {}
        self.forgotten: set[Source] = set()
        self.helps = list(helps)  # what each call for help encodes
        self.waits: list[bool] = []  # whether it might wait

    def begin_sources(self, sources: Sequence[Source]) -> None:
        self.states |= dict.fromkeys(sources, SourceState.BEGUN)

    def state(self, source: Source) -> SourceState:
        assert source not in self.forgotten
        return self.states.get(source, SourceState.READY)

    def take_latent(self, source: Source) -> Tensor:
        return torch.full((len(source), 4), float(source[0]))

    def help(self, *, may_wait: bool) -> bool:
        self.waits.append(may_wait)
        if not self.helps:
            return False
        self.states[self.helps.pop(0)] = SourceState.READY
        return True


def awaiting(machine: Machine, targets: dict[int, Source]) -> Newcomers:
    newcomers = Newcomers(cast(NativeMachine, machine), LatentCache(lambda _: [], 10_000))
    newcomers.begin(list(dict.fromkeys(targets.values())))
    for name, source in targets.items():
        newcomers.add(name, source)
    return newcomers


def test_who_is_awaited_gains_nothing_until_the_source_is_ready() -> None:
    newcomers = awaiting(machine := Machine(), {3: (1,), 5: (2,), 6: (1,)})
    names = [1, 2, 3, 4, 5, 6]

    before = newcomers.held_back(names)
    machine.states[(1,)] = SourceState.READY
    after = newcomers.held_back(names)

    assert before == {3: AWAITED, 5: AWAITED, 6: AWAITED}
    assert after == {5: AWAITED}
    assert machine.waits == []
    assert repr(newcomers) == "<Newcomers 1 awaited, 1 sources>"


def test_where_more_are_awaited_than_can_be_stepped_the_caller_encodes_but_never_waits() -> None:
    newcomers = awaiting(machine := Machine([(1,)]), {2: (1,), 3: (2,), 4: (3,), 5: (4,)})

    assert newcomers.held_back([1, 2, 3, 4, 5]) == {3: AWAITED, 4: AWAITED, 5: AWAITED}
    assert machine.waits == [False, False]


def test_where_a_long_source_keeps_others_waiting_the_caller_encodes_those() -> None:
    names, long = [1, 2, 3, 4, 5, 6], (9,) * 129
    newcomers = awaiting(machine := Machine([(1,)]), {2: long, 3: (1,)})
    assert newcomers.held_back(names) == {2: AWAITED}
    assert machine.waits == [False]

    alone = awaiting(machine := Machine(), {2: long})
    assert alone.held_back(names) == {2: AWAITED}
    others = awaiting(machine := Machine(), {2: (9,) * 128, 3: (1,)})
    assert others.held_back(names) == {2: AWAITED, 3: AWAITED}
    assert machine.waits == []


def test_where_nobody_can_be_stepped_the_caller_waits() -> None:
    newcomers = awaiting(machine := Machine([(2,)]), {2: (1,), 3: (2,)})

    assert newcomers.held_back([2, 3]) == {2: AWAITED}
    assert machine.waits == [True]


def test_a_source_that_fails_takes_only_its_own_readers() -> None:
    newcomers = awaiting(machine := Machine(), {1: (1,), 2: (2,), 3: (1,)})
    machine.states |= {(1,): SourceState.FAILED, (2,): SourceState.READY}

    assert newcomers.held_back([2]) == {}
    assert newcomers.held_back([1, 2, 3, 4]) == {1: FAILED, 3: FAILED}
    newcomers.leave(1)
    assert newcomers.held_back([1, 2, 3, 4]) == {3: FAILED}


def test_who_comes_later_for_a_source_that_failed_fails_too() -> None:
    newcomers = awaiting(machine := Machine(), {1: (1,)})
    machine.states[(1,)] = SourceState.FAILED
    assert newcomers.held_back([2]) == {}  # its reader is not due, and holds it still

    newcomers.add(9, (1,))
    newcomers.add(8, (2,))

    assert newcomers.held_back([2, 8, 9]) == {9: FAILED}


def test_latents_are_kept_of_what_succeeds() -> None:
    latents = LatentCache(lambda _: [], 10_000)
    newcomers = Newcomers(cast(NativeMachine, machine := Machine()), latents)
    newcomers.begin([(1,), (2,)])
    newcomers.add(1, (1,))
    newcomers.add(2, (2,))
    machine.states |= {(1,): SourceState.FAILED, (2,): SourceState.READY}

    newcomers.held_back([1, 2])

    assert ((1,) in latents, (2,) in latents) == (False, True)
    assert latents.misses == 2


def test_a_source_whose_last_reader_leaves_is_forgotten() -> None:
    newcomers = awaiting(machine := Machine(), {1: (1,), 2: (1,), 3: (2,)})

    newcomers.leave(1)
    assert newcomers.held_back([2, 7, 8, 9]) == {2: AWAITED}
    newcomers.leave(2)
    machine.forgotten.add((1,))  # nobody may ask for it any more

    assert newcomers.held_back([3, 7, 8, 9]) == {3: AWAITED}


def test_beside_is_chosen_where_something_else_can_be_stepped_and_no_latent_is_known() -> None:
    latents = LatentCache(lambda sources: [torch.ones(1, 4)] * len(sources), 10_000)
    latents.fetch([(2,)])
    newcomers = Newcomers(cast(NativeMachine, Machine()), latents)

    assert newcomers.chosen([(1,), (2,)], targets=0) == []
    assert newcomers.chosen([(1,), (2,)], targets=1) == [(1,)]
    newcomers.begin([(1,)])
    newcomers.add(5, (1,))
    assert newcomers.chosen([(3,)], targets=1) == []
    assert newcomers.chosen([(3,)], targets=2) == [(3,)]
    assert Newcomers(None, latents).chosen([(1,)], targets=9) == []


# -- in the compiled machine ----------------------------------------------------------------------


def compiled(threads: int = 1, **kind: Any) -> NativeNetwork:
    return NativeNetwork(tiny_network(**kind), threads, thread_products=1)


def runner(network: NativeNetwork, rows: int, latent_bytes: int = 0) -> Runner:
    return Runner(network, rows=rows, max_target=511, latent_bytes=latent_bytes)


def settled(cache: NativeCache, count: int) -> None:
    while any(cache.state(index) is SourceState.BEGUN for index in range(count)):
        cache.help(may_wait=True)


@NEEDS_LIBRARY
@every_kind
def test_what_is_encoded_beside_has_the_bits_of_what_is_encoded_at_once(
    kind: dict[str, Any],
) -> None:
    network, count = compiled(2, **kind), len(SOURCES)
    latents = network.encode(SOURCES)
    at_once, beside = (NativeCache(network, count, 64) for _ in range(2))
    at_once.add_sources(range(count), latents)

    beside.begin_sources(range(count), SOURCES)
    settled(beside, count)

    assert all(beside.state(index) is SourceState.READY for index in range(count))
    logits = []
    for cache in (at_once, beside):
        for row in range(count):
            cache.bind(row, row)
        rows, tokens = range(count), [PAD] * count
        found = cache.step(rows, tokens, [0] * count, [1] * count, logits_of=rows)
        assert found.logits is not None
        logits.append(found.logits)
    assert torch.equal(*logits)
    for index, latent in enumerate(latents):
        assert torch.equal(beside.take_latent(index), latent)


@NEEDS_LIBRARY
def test_who_helps_takes_no_long_source_while_others_could_be_stepped() -> None:
    cache = NativeCache(compiled(2, max_positions=200), 2, 64)
    for _ in range(20):  # whether or not the library's own thread has begun it
        cache.begin_sources([0], [(5,) * 129])
        assert not cache.help(may_wait=False)
        settled(cache, 1)
        cache.close_source(0)


@NEEDS_LIBRARY
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("kind", ["marian", "t5"])
def test_whoever_comes_while_others_run_gets_what_it_gets_alone(kind: str, threads: int) -> None:
    network, rng = compiled(threads, **KINDS[kind]), random.Random(threads)
    requests = random_requests(rng, 40, vocabulary=96, max_source=40, max_tokens=10)
    subject = runner(network, rows=24, latent_bytes=2**20)

    together = run_together(subject, requests, rng)

    for request, outcome in zip(requests, together, strict=True):
        assert outcome == run_alone(runner(network, request.options.rows), request)
    assert "0/24 rows, 0/24 sources" in repr(subject)
    assert subject.latents.misses < len(requests)


@NEEDS_LIBRARY
def test_who_leaves_while_its_source_is_encoded_makes_room_for_the_next_at_once() -> None:
    network = compiled(2)
    subject = runner(network, rows=4)
    subject.admit([Arrival((0,), SOURCES[0], OPTIONS)])
    long = random_tokens(6, [400] * 60, 70)
    for first in range(0, 60, 3):
        sources = long[first : first + 3]
        subject.admit([Arrival((row,), source, OPTIONS) for row, source in enumerate(sources, 1)])
        subject.release([1, 2, 3])
    subject.admit([Arrival((row,), SOURCES[row], OPTIONS) for row in (1, 2, 3)])

    outcomes = {row: Outcome() for row in range(4)}
    while any(outcome.steps < 8 for outcome in outcomes.values()):
        names = [row for row in range(4) if outcomes[row].steps < 8]
        for row, step in zip(names, subject.launch(names).result(), strict=True):
            outcomes[row].take(step)

    for row, outcome in outcomes.items():
        assert outcome == run_alone(runner(network, 1), Request(SOURCES[row], OPTIONS))


@NEEDS_LIBRARY
def test_where_there_is_no_memory_to_begin_with_a_source_all_is_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = compiled(2)
    subject = runner(network, rows=2)
    subject.admit([Arrival((0,), SOURCES[0], OPTIONS)])
    arrival = Arrival((1,), SOURCES[1], OPTIONS)

    def fails(*_: object) -> None:
        raise MemoryError("there was no memory")

    with monkeypatch.context() as patch:
        patch.setattr(NativeCache, "begin_sources", fails)
        with pytest.raises(MemoryError):
            subject.admit([arrival])
    assert "1/2 rows, 1/2 sources" in repr(subject)

    subject.admit([arrival])
    outcomes = [Outcome(), Outcome()]
    while outcomes[1].steps < 8:
        names = [row for row in (0, 1) if outcomes[row].steps < 8]
        for row, step in zip(names, subject.launch(names).result(), strict=True):
            outcomes[row].take(step)
    for source, outcome in zip(SOURCES, outcomes, strict=False):
        assert outcome == run_alone(runner(network, 1), Request(source, OPTIONS))


@NEEDS_LIBRARY
def test_one_thread_encodes_at_once() -> None:
    for threads, length in ((1, 0), (2, 400)):
        subject = runner(compiled(threads), rows=2)
        subject.admit([Arrival((0,), SOURCES[0], OPTIONS)])
        assert subject.encoding == 0
        subject.admit([Arrival((1,), random_tokens(6, [400], 70)[0], OPTIONS)])
        assert subject.encoding == length
        while subject.launch([1]).result()[0].is_awaited:
            pass
        assert subject.encoding == 0


@NEEDS_LIBRARY
def test_who_is_awaited_does_not_wait_for_a_launch_of_several_steps() -> None:
    subject = runner(compiled(2), rows=2)
    subject.admit([Arrival((0,), SOURCES[0], DecodingOptions(max_new_tokens=90))])
    assert len(subject.launch([0], 8).result()[0].tokens) > 1
    subject.admit([Arrival((1,), random_tokens(6, [500], 70)[0], OPTIONS)])

    running, newcomer = subject.launch([0, 1], 8).result()

    assert len(running.tokens) == 1 or not newcomer.is_awaited


@NEEDS_LIBRARY
def test_a_cache_may_go_while_its_sources_are_encoded() -> None:
    network, sources = compiled(2), random_tokens(7, [300] * 4, 70)
    before = network.encode(sources)
    for _ in range(20):
        cache = NativeCache(network, 4, 64)
        cache.begin_sources(range(4), sources)
        del cache
    assert all(map(torch.equal, network.encode(sources), before))
