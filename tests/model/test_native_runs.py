"""Several tokens in one call: the same ones that single steps give, and where a run ends."""

import random
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model import Arrival, DecodingOptions, Runner
from model.native.network import NativeNetwork
from tests.model.driver import Outcome, Request, random_requests, random_source, run_alone
from tests.model.native import KINDS, NEEDS_LIBRARY, Rows, random_tokens
from tests.model.networks import EOS, PAD, tiny_network

pytestmark = NEEDS_LIBRARY
ROOT = Path(__file__).parent.parent.parent
SOURCES = random_tokens(5, (9, 1, 17, 4, 30, 8), 70)
NEVER = 10**6  # no token's id
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def compiled(threads: int = 1, **kind: Any) -> NativeNetwork:
    return NativeNetwork(tiny_network(**kind), threads, thread_products=1)


def stepwise(network: NativeNetwork, count: int, starts: Sequence[int]) -> list[list[int]]:
    """Greedy tokens of every source, one step at a time."""
    rows = Rows(network, SOURCES)
    lines = [[token] for token in starts]
    for _ in range(count):
        found = rows.feed({row: line[-1] for row, line in enumerate(lines)})
        for line, token in zip(lines, found.tokens[:, 0].tolist(), strict=True):
            line.append(token)
    return [line[1:] for line in lines]


def run(
    network: NativeNetwork, rooms: Sequence[int], end: int = NEVER
) -> tuple[list[list[int]], list[bool]]:
    rows = Rows(network, SOURCES)
    count = len(SOURCES)
    return rows.cache.run(range(count), [PAD] * count, [0] * count, rooms, end)


@pytest.mark.parametrize("threads", [1, 2])
@every_kind
def test_a_run_gains_what_single_steps_do_up_to_each_rows_room(
    kind: dict[str, Any], threads: int
) -> None:
    network = compiled(threads, **kind)
    rooms = [20, 1, 7, 20, 2, 13]

    gained, healthy = run(network, rooms)

    steps = stepwise(network, 20, [PAD] * len(SOURCES))
    assert gained == [line[:room] for line, room in zip(steps, rooms, strict=True)]
    assert healthy == [True] * len(SOURCES)
    assert len({token for line in gained for token in line}) > 5, "too uniform"


def test_a_row_gains_nothing_after_the_end() -> None:
    network = compiled()
    steps = stepwise(network, 20, [PAD] * len(SOURCES))
    for end in {steps[0][3], steps[2][0], steps[4][19]}:
        gained, _ = run(network, [20] * len(SOURCES), end)
        assert gained == [line[: line.index(end) + 1] if end in line else line for line in steps]


def test_a_run_goes_on_where_the_last_one_stopped() -> None:
    network = compiled()
    rows, count = Rows(network, SOURCES), len(SOURCES)
    tokens, positions, lines = [PAD] * count, [0] * count, [[] for _ in SOURCES]  # type: ignore[var-annotated]
    for rooms in ([3, 1, 4, 2, 6, 5], [5, 3, 1, 4, 2, 6], [1] * 6):
        gained, _ = rows.cache.run(range(count), tokens, positions, rooms, NEVER)
        for row, line in enumerate(gained):
            lines[row] += line
            tokens[row], positions[row] = line[-1], positions[row] + len(line)

    steps = stepwise(network, 12, [PAD] * count)
    assert lines == [line[: len(own)] for line, own in zip(steps, lines, strict=True)]


def test_an_interruption_ends_this_run_or_the_next_after_a_step_and_no_other() -> None:
    network = compiled()
    rows, count = Rows(network, SOURCES), len(SOURCES)

    def lengths() -> set[int]:
        starts = [PAD] * count
        return {len(x) for x in rows.cache.run(range(count), starts, [0] * count, [9] * 6, -1)[0]}

    rows.cache.interrupt()
    rows.cache.interrupt()
    assert [lengths(), lengths()] == [{1}, {9}]


def test_an_interruption_from_another_thread_ends_a_run_and_harms_nothing() -> None:
    network = compiled()
    rows = Rows(network, SOURCES[:1], max_target=500)
    is_done, is_interrupting = threading.Event(), threading.Event()

    def interrupt() -> None:
        while not is_done.is_set():
            rows.cache.interrupt()
            is_interrupting.set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    is_interrupting.wait()
    gained, healthy = rows.cache.run([0], [PAD], [0], [500], -1)
    is_done.set()
    thread.join()

    length = len(gained[0])
    assert 1 <= length < 500
    assert healthy == [True]
    assert gained[0] == stepwise(network, length, [PAD] * 6)[0]


def test_a_row_that_is_not_healthy_ends_and_its_neighbours_go_on() -> None:
    network = tiny_network()
    assert network.decoder_positions is not None
    clean = NativeNetwork(tiny_network(), 1)
    steps = stepwise(clean, 9, [PAD] * 6)
    network.decoder_positions.weight[5] = float("nan")
    subject = Rows(NativeNetwork(network, 1), [SOURCES[0][:3], SOURCES[1], SOURCES[3]])
    expected = Rows(clean, [SOURCES[0][:3], SOURCES[1], SOURCES[3]])
    wanted, _ = expected.cache.run(range(3), [PAD] * 3, [0] * 3, [9, 4, 9], NEVER)

    gained, healthy = subject.cache.run(range(3), [PAD] * 3, [0] * 3, [9, 4, 9], NEVER)

    assert gained == [wanted[0][:5], wanted[1], wanted[2][:5]]
    assert healthy == [False, True, False]
    assert steps[1][:4] == wanted[1]


def launched(network: NativeNetwork, requests: Sequence[Request], steps: int) -> list[Outcome]:
    """Run all requests at once, `steps` a launch."""
    runner = Runner(network, rows=64, max_target=511, latent_bytes=0)
    outcomes = [Outcome() for _ in requests]
    free, names = list(range(64)), {}
    for index, request in enumerate(requests):
        rows = tuple(free.pop(0) for _ in range(request.options.rows))
        runner.admit([Arrival(rows, request.source, request.options)])
        names[rows[0]] = index
    while names:
        for name, step in zip(names, runner.launch(list(names), steps).result(), strict=True):
            outcomes[names[name]].take(step)
        for name, index in list(names.items()):
            options, found = requests[index].options, outcomes[index]
            is_full = options.rows == 1 and len(found.tokens) >= options.max_new_tokens
            if EOS in found.tokens[-1:] or is_full or found.hypotheses:
                runner.release([name])
                del names[name]
    return outcomes


def same_but_steps(one: Sequence[Outcome], other: Sequence[Outcome]) -> bool:
    return [replace(o, steps=0) for o in one] == [replace(o, steps=0) for o in other]


@pytest.mark.parametrize("steps", [2, 8, 64])
@every_kind
def test_launches_of_several_steps_give_what_single_ones_do(
    kind: dict[str, Any], steps: int
) -> None:
    network, rng = compiled(**kind), random.Random(steps)
    chosen: list[dict[str, Any]] = [
        {},
        {"target_prefix": (5, 9, 11)},
        {"forced_bos": 7},
        {"forced_eos": EOS},
        {"forced_bos": 7, "forced_eos": EOS, "target_prefix": (8,)},
        {"min_new_tokens": 9},
    ]
    requests = [
        Request(random_source(rng, 70, rng.randint(1, 30)), DecodingOptions(max_new_tokens=n, **c))
        for c in chosen
        for n in (1, 2, 11, 24)
        if n >= c.get("min_new_tokens", 0)
    ]

    single = [
        run_alone(Runner(network, rows=1, max_target=511, latent_bytes=0), r) for r in requests
    ]
    several = launched(network, requests, steps)

    assert same_but_steps(several, single)
    for request, outcome in zip(requests, single, strict=True):
        assert same_but_steps(launched(network, [request], steps), [outcome])
    assert launched(network, requests[:1], 64)[0].steps == 1


@pytest.mark.parametrize("kind", ["marian", "t5"])
def test_whatever_shares_a_launch_of_several_steps_gets_what_it_gets_alone(kind: str) -> None:
    """Sampling, penalties, scores, beams and plain rows."""
    network = compiled(**KINDS[kind])
    requests = random_requests(random.Random(1), 24, vocabulary=96, max_source=30, max_tokens=12)
    requests = [replace(request, cancel_after=None) for request in requests]
    requests += [Request(requests[0].source, DecodingOptions(max_new_tokens=20))] * 3

    single = [
        run_alone(Runner(network, rows=r.options.rows, max_target=511, latent_bytes=0), r)
        for r in requests
    ]
    for begin in range(0, len(requests), 9):
        some = slice(begin, begin + 9)
        several = launched(network, requests[some], 8)
        for request, found, alone in zip(requests[some], several, single[some], strict=True):
            assert found.tokens == alone.tokens
            assert found.hypotheses == alone.hypotheses
            if request.options.wants_scores:
                assert found.scores == alone.scores


def test_a_full_row_is_refused_before_anything_is_written() -> None:
    network = compiled()
    runner = Runner(network, rows=2, max_target=10, latent_bytes=0)
    full = DecodingOptions(max_new_tokens=10, min_new_tokens=10)
    runner.admit([Arrival((0,), SOURCES[0], full)])
    for _ in range(10):
        runner.launch([0])
    runner.admit([Arrival((1,), SOURCES[2], full)])
    for steps in (1, 8):
        with pytest.raises(IndexError, match="row 0 holds 10 tokens"):
            runner.launch([0, 1], steps)

    found = Outcome()
    for _ in range(10):
        found.take(runner.launch([1]).result()[0])

    alone = run_alone(
        Runner(network, rows=1, max_target=10, latent_bytes=0), Request(SOURCES[2], full)
    )
    assert found == alone


@pytest.mark.parametrize("token", [-1, 96, 2**40])
@pytest.mark.parametrize("where", ["source", "target_prefix", "start", "forced_bos", "forced_eos"])
def test_a_token_of_no_vocabulary_is_refused(where: str, token: int) -> None:
    runner = Runner(compiled(), rows=1, max_target=10, latent_bytes=0)
    source = (5, token, 0) if where == "source" else (5, 0)
    chosen: dict[str, Any] = (
        {} if where == "source" else {where: (token,) if "prefix" in where else token}
    )

    def admit() -> None:  # it may be refused here or at the options
        runner.admit([Arrival((0,), source, DecodingOptions(max_new_tokens=3, **chosen))])

    with pytest.raises(ValueError, match=r"token|vocabulary"):
        admit()
    assert "0/1 rows, 0/1 sources" in repr(runner)


def test_no_more_positions_are_held_than_the_network_has() -> None:
    with pytest.raises(ValueError, match="targets of 513 tokens; the network has 512 positions"):
        Runner(compiled(), rows=1, max_target=513, latent_bytes=0)


def test_a_poisoned_source_of_a_run_harms_no_neighbour_and_nobody_after_it() -> None:
    poisonous = tiny_network(suppressed=(PAD, 90))
    poisonous.embedding.weight.data[90] = float("nan")
    network = NativeNetwork(poisonous, 1)
    options = DecodingOptions(max_new_tokens=12)
    runner = Runner(network, rows=3, max_target=20, latent_bytes=2**20)
    sources = [SOURCES[0], (5, 90, 0), SOURCES[2]]
    runner.admit([Arrival((row,), source, options) for row, source in enumerate(sources)])

    found = runner.launch([0, 1, 2], 12).result()

    assert [step.is_healthy for step in found] == [True, False, True]
    alone = [launched(network, [Request(source, options)], 1)[0].tokens for source in SOURCES[:3]]
    assert [list(found[row].tokens) for row in (0, 2)] == [alone[0], alone[2]]
    runner.release([1])
    runner.admit([Arrival((1,), SOURCES[1], options)])
    assert list(runner.launch([1], 12).result()[0].tokens) == alone[1]


def test_the_interpreter_may_end_while_a_daemon_thread_decodes() -> None:
    script = """
import threading
from model.native.network import NativeNetwork
from tests.model.native import Rows
from tests.model.networks import tiny_network

network = NativeNetwork(tiny_network(), 2, thread_products=1)
rows = Rows(network, [(5, 6, 0)], max_target=500)
is_running = threading.Event()

def decode():
    while True:
        rows.cache.run([0], [95], [0], [500], -1)
        is_running.set()

threading.Thread(target=decode, daemon=True).start()
is_running.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
