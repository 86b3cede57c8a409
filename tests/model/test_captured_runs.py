"""Captured steps give the eager machine's targets, whatever runs beside and however late."""

import logging
import random
from typing import Any

import pytest
import torch

from model import Arrival, DecodingOptions, Runner
from model.backends import cpu
from model.captured import beams, device
from model.captured.settings import CaptureSettings
from model.decoding.options import EarlyStopping
from model.eager import EagerMachine
from model.transformer import EncoderDecoder
from tests.model.captured_runners import (
    PREFIX,
    CapturedRunner,
    PoisonedRunner,
    assert_alike,
    begin,
    random_runs,
)
from tests.model.driver import (
    Outcome,
    Request,
    random_requests,
    random_source,
    run_alone,
    run_together,
)
from tests.model.native import KINDS
from tests.model.networks import EOS, PAD, TENSOR2TENSOR, tiny_network

POISON = 90
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def eager(network: EncoderDecoder, rows: int = 14) -> Runner:
    return Runner(network, rows=rows, max_target=40, latent_bytes=0)


def launched(runner: Runner, request: Request, steps: int = 40) -> Outcome:
    """One request, several steps at once."""
    runner.admit([_arrival(request)])
    outcome = Outcome()
    while not (outcome.hypotheses or EOS in outcome.tokens) and (
        request.options.rows > 1 or len(outcome.tokens) < request.options.max_new_tokens
    ):
        outcome.take(Runner.launch(runner, [0], steps).result()[0])
    runner.release([0])
    return outcome


def _arrival(request: Request) -> Any:
    return Arrival(tuple(range(request.options.rows)), request.source, request.options)


@every_kind
def test_every_kind_of_request_has_the_eager_targets(kind: dict[str, Any]) -> None:
    network = tiny_network(**kind)
    rng = random.Random(3)
    requests = random_requests(rng, 12, vocabulary=70, max_source=30, max_tokens=12)
    requests += random_runs(rng, 12, vocabulary=70)
    expected = run_together(eager(network), requests, random.Random(1))

    found = run_together(CapturedRunner(network, 14, most=5), requests, random.Random(1))

    assert_alike(found, expected)
    for mine, other in zip(found, expected, strict=True):
        if not other.hypotheses:
            # These networks' float32 logits are up to 9e-4 away from their float64 ones.
            assert mine.scores == pytest.approx(other.scores, abs=3e-3)


@pytest.mark.parametrize("late", [0, 1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_forty_requests_that_come_and_go_have_the_targets_they_have_alone(
    late: int, seed: int
) -> None:
    network = tiny_network(**TENSOR2TENSOR if seed else {})
    requests = random_runs(random.Random(seed), 40)
    expected = [run_alone(eager(network, 4), request) for request in requests]

    subject = PoisonedRunner(network, 14, most=6, late=late, bucket_min=2, launches=400)
    found = run_together(subject, requests, random.Random(late))

    assert_alike(found, expected)
    kinds = {(outcome.healthy, bool(outcome.hypotheses)) for outcome in found}
    assert kinds == {(True, True), (True, False)}


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["marian", "bart", "t5", "m2m100"])
def test_half_precisions_are_as_near_to_float32_as_the_eager_ones(
    name: str, precision: str
) -> None:
    source, tokens = random_source(random.Random(2), 90, 20), list(range(5, 25))
    start, length = torch.tensor([[PAD, *tokens[:-1]]]), torch.tensor([20])
    exact = tiny_network(**KINDS[name])
    network = tiny_network(**KINDS[name]).to(getattr(torch, precision))
    if precision == "float16" and network.config.keeps_down_float32:
        for layer in [*network.encoder, *network.decoder]:
            layer.get_submodule("feed_forward.down").float()
    wanted = exact(torch.tensor([source]), length, start)[0]
    rounded = network(torch.tensor([source]), length, start)[0]

    subject = CapturedRunner(network, 3)
    begin(subject, [source], DecodingOptions(max_new_tokens=1, target_prefix=tuple(tokens)))
    found = []
    for _ in tokens:
        subject.machine.room = lambda target, decoded: 0  # type: ignore[method-assign]
        subject.launch([0])
        found.append(subject.memory.logits[0].clone())

    allowed = 1.5 * (rounded - wanted).abs().max()
    assert allowed > 0
    assert (torch.stack(found)[:, :PAD] - wanted[:, :PAD]).abs().max() < allowed


def test_one_bucket_gives_a_row_the_same_bits_in_any_company_and_any_slot() -> None:
    network = tiny_network()
    rng = random.Random(5)
    source = random_source(rng, 90, 12)
    options = DecodingOptions(max_new_tokens=9, min_new_tokens=9, suppressed=(3,))

    def bits(row: int, company: int) -> list[torch.Tensor]:
        subject = CapturedRunner(network, 16, bucket_min=16, encoder_tokens=1)
        sources = [random_source(rng, 90, rng.randint(1, 30)) for _ in range(company)]
        sources[row] = source
        begin(subject, sources, options)
        found = []
        for _ in range(9):
            names = rng.sample(range(company), company)
            subject.launch(names)
            found.append(subject.memory.logits[row].clone())
        return found

    alone = bits(0, 1)
    for row, company in ((0, 3), (2, 9), (15, 16)):
        assert all(map(torch.equal, bits(row, company), alone))


def test_a_seed_gives_the_eager_draws() -> None:
    network = tiny_network()
    source = random_source(random.Random(0), 96, 20)
    drawn = set()
    for seed in (0, 7, 2**63, 2**64 - 1):
        options = DecodingOptions(max_new_tokens=12, min_new_tokens=12, temperature=1.5, seed=seed)
        request = Request(source, options)
        expected = run_alone(eager(network, 1), request).tokens
        assert launched(CapturedRunner(network, 1), request).tokens == expected
        drawn.add(tuple(expected))
    assert len(drawn) == 4


@pytest.mark.parametrize("beams", [2, 3, 8])
@pytest.mark.parametrize("end_bias", [0.0, 4.0])
def test_a_search_that_goes_on_by_itself_finds_the_eager_hypotheses(
    beams: int, end_bias: float
) -> None:
    network = tiny_network()
    assert network.logits_bias is not None
    network.logits_bias[EOS] += end_bias
    rng = random.Random(beams)
    kinds: list[tuple[EarlyStopping, bool]] = [(True, False), (False, True), ("never", True)]
    for early, renormalises in kinds:
        options = DecodingOptions(
            max_new_tokens=14,
            num_beams=beams,
            num_hypotheses=beams,
            early_stopping=early,
            renormalises=renormalises,
            wants_scores=not renormalises,
            min_new_tokens=rng.choice([0, 6]),
            target_prefix=rng.choice([(), PREFIX]),
        )
        request = Request(random_source(rng, 96, 12), options)
        expected = run_alone(eager(network, beams), request).hypotheses
        found = launched(CapturedRunner(network, beams), request).hypotheses
        assert [h.tokens for h in found] == [h.tokens for h in expected]
        for mine, other in zip(found, expected, strict=True):
            assert mine.score == pytest.approx(other.score, abs=1e-4)
            assert mine.log_probs == pytest.approx(other.log_probs, abs=1e-4)


@pytest.mark.parametrize("name", ["marian", "t5"])
@pytest.mark.parametrize("wanted", ["average", 1])
def test_alignments_are_the_eager_ones_and_cost_company_nothing(name: str, wanted: Any) -> None:
    network = tiny_network(**KINDS[name])
    rng = random.Random(9)
    aligned = DecodingOptions(max_new_tokens=8, alignments=wanted)
    requests = [Request(random_source(rng, 90, 11), aligned), *random_runs(rng, 6)]
    expected = run_together(eager(network), requests, random.Random(2))

    found = run_together(CapturedRunner(network, 14, most=4), requests, random.Random(2))

    assert_alike(found, expected)
    assert len(found[0].alignments) == len(found[0].tokens) > 1
    for mine, other in zip(found[0].alignments, expected[0].alignments, strict=True):
        assert mine == pytest.approx(other, abs=1e-4)


def test_where_hardly_anything_is_possible_fewer_beams_live() -> None:
    network = tiny_network(suppressed=tuple(range(2, 96)))
    request = Request((5, 6, 0), DecodingOptions(max_new_tokens=6, num_beams=4, num_hypotheses=4))
    expected = run_alone(eager(network, 4), request).hypotheses

    found = launched(CapturedRunner(network, 4), request).hypotheses

    assert [h.tokens for h in found] == [h.tokens for h in expected]


def test_a_search_may_change_between_single_steps_and_runs() -> None:
    network = tiny_network()
    options = DecodingOptions(max_new_tokens=14, num_beams=3, num_hypotheses=3)
    request = Request(random_source(random.Random(1), 96, 9), options)
    expected = run_alone(eager(network, 3), request).hypotheses
    subject = CapturedRunner(network, 3)
    machine, room = subject.machine, subject.machine.room
    outcome = Outcome()
    subject.admit([_arrival(request)])
    for turn in range(14):
        machine.room = room if turn % 2 else lambda target, decoded: 0  # type: ignore[method-assign]
        outcome.take(Runner.launch(subject, [0], 2).result()[0])
        if outcome.hypotheses:
            break

    assert [h.tokens for h in outcome.hypotheses] == [h.tokens for h in expected]


def test_an_interruption_ends_a_run_after_the_steps_in_flight_and_loses_nothing() -> None:
    network = tiny_network()
    options = DecodingOptions(max_new_tokens=12, min_new_tokens=12)
    request = Request(random_source(random.Random(4), 96, 9), options)
    expected = run_alone(eager(network, 1), request).tokens
    for late in (0, 1, 2):
        subject = CapturedRunner(network, 1, late=late)
        begin(subject, [request.source], options)
        subject.interrupt()
        first = Runner.launch(subject, [0], 12).result()[0].tokens
        rest = Runner.launch(subject, [0], 12).result()[0].tokens
        assert [*first, *rest] == expected
        assert len(first) == 1


def test_a_run_ends_with_its_last_target() -> None:
    subject = CapturedRunner(tiny_network(), 2, late=1)
    short = DecodingOptions(max_new_tokens=3, min_new_tokens=3)
    begin(subject, [(5, 6, 0), (7, 8, 9, 0)], short)
    replayed = []
    replay = subject.machine._steps.replay
    subject.machine._steps.replay = lambda *a: (replayed.append(a), replay(*a))  # type: ignore

    Runner.launch(subject, [0, 1], 30)

    assert replayed == [(8, "greedy")] * 3


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"num_beams": 3}])
def test_a_poisoned_source_fails_alone_and_harms_nobody_after_it(options: dict[str, Any]) -> None:
    network = tiny_network(shares_embedding=False)
    network.source_embedding.weight.data[POISON] = float("nan")
    chosen = DecodingOptions(max_new_tokens=8, **options)
    rng = random.Random(8)
    sources = [random_source(rng, POISON, 12) for _ in range(3)]
    requests = [Request(source, chosen) for source in sources]
    expected = [run_alone(eager(network), request) for request in requests]
    poisoned = [*requests]
    poisoned[1] = Request((5, POISON, 0), chosen)
    subject = CapturedRunner(network, 9, most=3)

    for turn in (poisoned, requests):
        found = run_together(subject, turn, random.Random(turn is requests))
        assert [outcome.healthy for outcome in found] == [r.source[1] != POISON for r in turn]
        pairs = [(mine, other) for mine, other in zip(found, expected, strict=True) if mine.healthy]
        assert_alike([mine for mine, _ in pairs], [other for _, other in pairs])
        assert all(bool(cells.isfinite().all()) for cells in _cells(subject))
    assert "0/9 rows, 0/9 sources" in repr(subject)


def _cells(subject: CapturedRunner) -> list[torch.Tensor]:
    memory = subject.memory
    return [memory.keys, memory.values, memory.source_keys, memory.source_values]


def test_a_run_that_raises_leaves_every_row_as_it_was() -> None:
    network = tiny_network()
    options = DecodingOptions(max_new_tokens=10, num_beams=3, num_hypotheses=3)
    request = Request(random_source(random.Random(6), 96, 9), options)
    expected = run_alone(eager(network, 3), request).hypotheses
    subject = CapturedRunner(network, 3)
    subject.admit([_arrival(request)])
    outcome = Outcome()
    Runner.launch(subject, [0], 3)
    steps, replay = subject.machine._steps, subject.machine._steps.replay
    ancestors = subject.memory.slots.ancestors
    before, moved = ancestors.clone(), []

    def failing(*args: Any) -> None:
        moved.append(not torch.equal(ancestors[:3, :3], before[:3, :3]))
        if len(moved) == 5:
            raise MemoryError
        replay(*args)

    steps.replay = failing  # type: ignore
    with pytest.raises(MemoryError):
        Runner.launch(subject, [0], 9)
    assert moved[-1]
    assert torch.equal(ancestors[:3, :3], before[:3, :3])
    while not outcome.hypotheses:
        outcome.take(Runner.launch(subject, [0], 9).result()[0])

    assert [h.tokens for h in outcome.hypotheses] == [h.tokens for h in expected]


class _Unreached:
    """A mark that is reached after it has been asked for some times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def query(self) -> bool:
        self.left -= 1
        return self.left < 0

    def synchronize(self) -> None:
        raise AssertionError("the host waits for the device alone")


def test_a_newcomer_waits_for_its_source_while_others_run_and_they_then_for_it() -> None:
    network = tiny_network()
    options = DecodingOptions(max_new_tokens=12, min_new_tokens=12)
    sources = [(5, 6, 0), (7, 8, 9, 0)]
    expected = [run_alone(eager(network, 1), Request(s, options)).tokens for s in sources]
    subject = CapturedRunner(network, 2)
    begin(subject, sources, options)
    subject.machine._sources._written[sources[1]] = _Unreached(4)

    found = [list(step.tokens) for step in Runner.launch(subject, [0, 1], 12).result()]
    assert [len(tokens) for tokens in found] == [4, 0]
    for tokens, step in zip(found, Runner.launch(subject, [0, 1], 12).result(), strict=True):
        tokens += step.tokens

    assert found == [expected[0], expected[1]]


def test_where_capture_fails_steps_run_operator_by_operator_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(device.Host, "capture", refuse)
    with caplog.at_level(logging.WARNING):
        subject = Runner(tiny_network(), rows=2, max_target=9, latent_bytes=0, captured=True)

    assert isinstance(subject._machine, EagerMachine)
    assert "operator by operator, as capturing them failed: operation not" in caplog.text


def test_steps_are_captured_on_a_cpu_only_where_that_is_asked_for() -> None:
    for captured, name in ((None, "Eager"), (False, "Eager"), (True, "Captured")):
        subject = Runner(tiny_network(), rows=2, max_target=9, latent_bytes=0, captured=captured)
        assert f"<{name}Machine" in repr(subject)


def test_an_eight_bit_network_is_not_captured() -> None:
    network = tiny_network()
    cpu.quantise(network)
    with pytest.raises(ValueError, match="float32, bfloat16 and float16, not int8"):
        Runner(network, rows=2, max_target=9, latent_bytes=0, captured=CaptureSettings())


def test_no_more_positions_are_held_than_the_network_has() -> None:
    with pytest.raises(ValueError, match="targets of 513 tokens; the network has 512 positions"):
        Runner(tiny_network(), rows=1, max_target=513, latent_bytes=0, captured=True)


def test_a_search_says_how_many_steps_it_took() -> None:
    subject = CapturedRunner(tiny_network(), 4)
    options = DecodingOptions(max_new_tokens=20, min_new_tokens=9, num_beams=3)
    request = Request((5, 6, 7, 0), options)
    subject.admit([_arrival(request)])
    assert [Runner.launch(subject, [0], steps).result()[0].steps for steps in (5, 1, 2)] == [
        5,
        1,
        2,
    ]


@torch.inference_mode()
def test_a_search_that_has_stopped_stays_as_it_was_while_others_go_on() -> None:
    memory = CapturedRunner(tiny_network(), 4).memory
    memory.slots.ancestors[:4] = torch.arange(4, dtype=torch.int32)[:, None]
    memory.slots.is_active[:4] = torch.tensor([1, 1, 0, 0])
    rows, parents = torch.tensor([[0, 1], [2, 3]]), torch.tensor([[0, 0], [2, 2]])
    scores = torch.full((2, 2), -5.0, dtype=torch.float64)
    following = beams._Next(rows, parents, rows.int(), scores)

    beams._take_over(following, torch.arange(4, dtype=torch.int32), memory)

    assert memory.slots.ancestors[:4, 0].tolist() == [0, 0, 2, 3]
    assert memory.score[:4].tolist() == [-5.0, -5.0, 0.0, 0.0]
