"""A failure takes its own request: neighbours, and whoever comes next, are as in a clean run."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from model import Arrival, DecodingOptions, Runner
from model.config import ModelConfig
from model.transformer import EncoderDecoder, Memory
from tests.model.driver import Outcome, Request, random_source, run_alone
from tests.model.networks import EOS, PAD, randomise, tiny_config, tiny_network

POISON = 90  # its embedding is NaN, so is the latent of every source that holds it
OPTIONS = DecodingOptions(max_new_tokens=8, min_new_tokens=8)


def poisonous_network() -> EncoderDecoder:
    network = tiny_network(suppressed=(PAD, POISON))
    network.embedding.weight.data[POISON] = float("nan")
    return network


def runner(network: EncoderDecoder, rows: int = 8, max_target: int = 40) -> Runner:
    return Runner(network, rows=rows, max_target=max_target, latent_bytes=2**20)


def sources(count: int, length: int = 12) -> list[tuple[int, ...]]:
    rng = random.Random(count)
    return [random_source(rng, POISON, length) for _ in range(count)]


def admit(subject: Runner, chosen: Sequence[tuple[int, ...]]) -> None:
    subject.admit([Arrival((row,), source, OPTIONS) for row, source in enumerate(chosen)])


def steps(subject: Runner, rows: Sequence[int], count: int = 8) -> dict[int, Outcome]:
    outcomes = {row: Outcome() for row in rows}
    for _ in range(count):
        for row, step in zip(rows, subject.launch(rows).result(), strict=True):
            outcomes[row].take(step)
    return outcomes


def alone(network: EncoderDecoder, source: tuple[int, ...]) -> Outcome:
    return run_alone(runner(network), Request(source, OPTIONS))


@pytest.mark.parametrize("bad", [0, 3, 5])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_poisoned_source_takes_only_its_own_row(bad: int, temperature: float) -> None:
    options = DecodingOptions(max_new_tokens=8, min_new_tokens=8, temperature=temperature)
    clean = sources(6)
    poisoned = (*clean[bad][:-2], POISON, EOS)
    mixed = [*clean[:bad], poisoned, *clean[bad + 1 :]]
    subject = runner(poisonous_network())
    subject.admit([Arrival((row,), source, options) for row, source in enumerate(mixed)])

    outcomes = steps(subject, range(6))

    assert [row for row in range(6) if not outcomes[row].healthy] == [bad]
    for row in set(range(6)) - {bad}:
        request = Request(clean[row], options)
        assert outcomes[row] == run_alone(runner(poisonous_network()), request)


def test_what_a_poisoned_row_held_harms_nobody_after_it() -> None:
    subject = runner(poisonous_network(), rows=1)
    subject.admit([Arrival((0,), (*sources(1, 39)[0], POISON), OPTIONS)])
    assert not steps(subject, [0], 3)[0].healthy
    subject.release([0])

    reused = run_alone(subject, Request(sources(1)[0], OPTIONS))

    assert reused == alone(poisonous_network(), sources(1)[0])
    assert reused.healthy


def test_a_row_that_turns_bad_at_a_late_position_is_wiped_for_the_next_one() -> None:
    network = tiny_network()
    assert network.decoder_positions is not None
    network.decoder_positions.weight[20] = float("nan")
    subject = runner(network, rows=2)
    first, second = sources(2)
    admit(subject, [first, second])
    early = [steps(subject, [0], 1)[0].healthy for _ in range(20)]
    late = steps(subject, [0, 1], 1)
    assert (all(early), late[0].healthy, late[1].healthy) == (True, False, True)

    subject.release([0])
    third = sources(3)[2]
    subject.admit([Arrival((0,), third, OPTIONS)])
    outcomes = steps(subject, [1, 0], 7)

    assert late[1].tokens + outcomes[1].tokens == alone(network, second).tokens
    assert outcomes[0].tokens == alone(network, third).tokens[:7]
    assert all(outcome.healthy for outcome in outcomes.values())


def test_a_poisoned_source_that_never_ran_harms_nobody_after_it() -> None:
    subject = runner(poisonous_network(), rows=1)
    subject.admit([Arrival((0,), (*sources(1, 20)[0], POISON), OPTIONS)])
    subject.release([0])

    reused = run_alone(subject, Request(sources(1, 5)[0], OPTIONS))

    assert reused.healthy


@pytest.mark.parametrize("length", [0, 513])
def test_a_source_of_impossible_length_is_refused_and_the_others_enter_alone(length: int) -> None:
    subject = runner(tiny_network())
    first, second = sources(2)
    arrivals = [
        Arrival((0,), first, OPTIONS),
        Arrival((1,), (5,) * length, OPTIONS),
        Arrival((2,), second, OPTIONS),
    ]

    with pytest.raises(ValueError, match=f"a source of {length} tokens; at most 512"):
        subject.admit(arrivals)
    assert "0/8 rows, 0/8 sources" in repr(subject)

    subject.admit([arrivals[0]])
    subject.admit([arrivals[2]])
    outcomes = steps(subject, [0, 2])
    assert outcomes[0] == alone(tiny_network(), first)
    assert outcomes[2] == alone(tiny_network(), second)


class Flaky(EncoderDecoder):
    """Raises at the end of the work that it is told to break."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.breaks_encode = self.breaks_project = self.breaks_decode = False

    def encode(self, source: Tensor, lengths: Tensor) -> Tensor:
        latents = super().encode(source, lengths)
        if self.breaks_encode and bool((source == POISON).any()):
            raise RuntimeError("out of memory")
        return latents

    def source_keys_values(self, latents: Tensor) -> list[tuple[Tensor, Tensor]]:
        if self.breaks_project and latents.shape[1] == 16:
            raise RuntimeError("out of memory")
        return super().source_keys_values(latents)

    def decode(
        self,
        tokens: Tensor,
        positions: Tensor,
        memory: Memory,
        attention: list[Tensor] | None = None,
    ) -> Tensor:
        logits = super().decode(tokens, positions, memory, attention)
        if self.breaks_decode:
            raise RuntimeError("out of memory")
        return logits


def flaky_network() -> Flaky:
    network = Flaky(tiny_config())
    randomise(network)
    return network


def test_an_encoder_that_raises_for_one_source_admits_the_others_alone() -> None:
    network = flaky_network()
    network.breaks_encode = True
    subject = runner(network)
    good, other = sources(2)
    bad = (POISON, *other[1:])
    with pytest.raises(RuntimeError, match="out of memory"):
        subject.admit([Arrival((0,), good, OPTIONS), Arrival((1,), bad, OPTIONS)])
    assert "0/8 rows, 0/8 sources" in repr(subject)

    subject.admit([Arrival((0,), good, OPTIONS)])

    assert steps(subject, [0])[0] == alone(tiny_network(), good)


def test_a_projection_that_raises_loses_no_source_slot_and_disturbs_no_row() -> None:
    network = flaky_network()
    subject = runner(network, rows=3)
    running, small = sources(2, length=6)
    large = sources(1, length=16)[0]
    subject.admit([Arrival((0,), running, OPTIONS)])
    before = steps(subject, [0], 4)[0]
    network.breaks_project = True
    for _ in range(10):
        with pytest.raises(RuntimeError, match="out of memory"):
            subject.admit([Arrival((1,), small, OPTIONS), Arrival((2,), large, OPTIONS)])
    network.breaks_project = False

    subject.admit([Arrival((1,), small, OPTIONS), Arrival((2,), large, OPTIONS)])
    after = steps(subject, [2, 0, 1], 4)

    assert before.tokens + after[0].tokens == alone(network, running).tokens
    assert after[1].tokens == alone(network, small).tokens[:4]
    assert after[2].tokens == alone(network, large).tokens[:4]


def test_a_poisoned_source_of_a_refused_admission_harms_nobody_after_it() -> None:
    network = flaky_network()
    network.embedding.weight.data[POISON] = float("nan")
    network.config = tiny_config(suppressed=(PAD, POISON))
    network.breaks_project = True
    subject = runner(network, rows=2)
    poisoned, large = (*sources(1, 7)[0], POISON), sources(1, length=16)[0]
    with pytest.raises(RuntimeError, match="out of memory"):
        subject.admit([Arrival((0,), poisoned, OPTIONS), Arrival((1,), large, OPTIONS)])

    subject.admit([Arrival((row,), source, OPTIONS) for row, source in enumerate(sources(2, 4))])

    assert all(outcome.healthy for outcome in steps(subject, [0, 1]).values())


def test_a_step_that_raises_can_be_repeated_row_by_row() -> None:
    network = flaky_network()
    subject = runner(network)
    chosen = sources(3)
    admit(subject, chosen)
    first = steps(subject, [0, 1, 2], 3)
    network.breaks_decode = True
    with pytest.raises(RuntimeError, match="out of memory"):
        subject.launch([0, 1, 2])
    network.breaks_decode = False

    rest = [steps(subject, [row], 5)[row] for row in range(3)]

    for row, source in enumerate(chosen):
        assert first[row].tokens + rest[row].tokens == alone(network, source).tokens


def test_a_row_beyond_its_capacity_raises_and_leaves_its_neighbour_as_it_was() -> None:
    network = tiny_network()
    subject = runner(network, rows=2, max_target=10)
    first, second = sources(2)
    subject.admit([Arrival((0,), first, OPTIONS)])
    steps(subject, [0], 10)
    subject.admit([Arrival((1,), second, OPTIONS)])
    with pytest.raises((IndexError, ValueError, RuntimeError)):
        subject.launch([0, 1])

    outcome = steps(subject, [1])[1]

    assert outcome == alone(network, second)


def test_options_that_cannot_be_held_leave_no_row_behind() -> None:
    subject = runner(tiny_network(), rows=2)
    first, second = sources(2)

    def admit_huge() -> None:  # it may be refused here or at the options
        huge = DecodingOptions(max_new_tokens=2**70, min_new_tokens=2**70)
        subject.admit([Arrival((0,), first, OPTIONS), Arrival((1,), second, huge)])

    with pytest.raises((OverflowError, ValueError, RuntimeError)):
        admit_huge()

    assert "0/2 rows, 0/2 sources" in repr(subject)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_used_many_times_is_as_good_as_new(dtype: torch.dtype) -> None:
    network = tiny_network().to(dtype)
    subject = runner(network, rows=1)
    lengths = [39, 1, 17, 60, 2]

    for length in lengths:
        request = Request(sources(1, length)[0], OPTIONS)
        assert run_alone(subject, request) == run_alone(runner(network), request)


@pytest.mark.parametrize("kind", [{"num_beams": 3}, {"alternatives": 3}], ids=str)
def test_a_search_beside_a_row_that_raises_goes_on_as_it_was(kind: dict[str, Any]) -> None:
    network = tiny_network()
    subject = runner(network, rows=4, max_target=10)
    first, second = sources(2)
    searching = DecodingOptions(max_new_tokens=9, min_new_tokens=9, **kind)
    subject.admit([Arrival((0,), first, OPTIONS)])
    subject.admit([Arrival((1, 2, 3), second, searching)])
    steps(subject, [0], 6)
    outcome = steps(subject, [0, 1], 4)[1]
    for _ in range(3):
        with pytest.raises(IndexError, match="row 0 holds 10 tokens"):
            subject.launch([1, 0])

    while not outcome.hypotheses:
        outcome.take(subject.launch([1]).result()[0])

    assert outcome == run_alone(runner(network), Request(second, searching))


@pytest.mark.parametrize("kind", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
@pytest.mark.parametrize("forced", ["forced_bos", "forced_eos"])
def test_a_token_that_is_forced_does_not_hide_a_poisoned_row(
    kind: dict[str, Any], forced: str
) -> None:
    chosen: dict[str, Any] = {forced: EOS, "max_new_tokens": 1, **kind}
    options = DecodingOptions(**chosen)
    subject = runner(poisonous_network())
    rows = tuple(range(options.rows))
    subject.admit([Arrival(rows, (*sources(1)[0], POISON), options)])

    assert not steps(subject, [0], 1)[0].healthy
