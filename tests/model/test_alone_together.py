"""A request's tokens and scores are the same bits whatever shares its batch."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from model import BUNDLED, DecodingOptions, Precision, Runner, load
from model.backends import cpu
from model.native.network import NativeNetwork, is_available
from model.runner import Network
from model.transformer import EncoderDecoder
from tests.model.driver import Outcome, Request, random_requests, random_source, run_together
from tests.model.driver import run_alone as run
from tests.model.networks import BART_LIKE, T5_LIKE, TENSOR2TENSOR, tiny_network

PRECISIONS = pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16", "int8"])
needs_library = pytest.mark.skipif(
    not is_available(), reason="the compiled library was not built, or is not for this CPU"
)
KERNELS = pytest.mark.parametrize(  # int8 by PyTorch's operators, and by the compiled library
    "precision",
    ["float32", "bfloat16", "float16", "int8", pytest.param("compiled", marks=needs_library)],
)
KINDS = pytest.mark.parametrize(
    "kind", [{}, BART_LIKE, T5_LIKE, TENSOR2TENSOR], ids=["marian", "bart", "t5", "m2m100"]
)


def runner(network: Network, rows: int, latent_bytes: int = 0) -> Runner:
    return Runner(network, rows=rows, max_target=511, latent_bytes=latent_bytes)


def in_precision(network: EncoderDecoder, precision: str) -> Network:
    if precision == "compiled":
        return NativeNetwork(network, torch.get_num_threads())
    if precision == "int8":
        cpu.quantise(network)
        return network
    return network.to(getattr(torch, precision))


def alone(network: Network, request: Request) -> Outcome:
    return run(runner(network, rows=request.options.rows), request)


def assert_same(
    requests: Sequence[Request], together: Sequence[Outcome], alone: Sequence[Outcome]
) -> None:
    assert [o.tokens for o in together] == [o.tokens for o in alone]
    asked = [i for i, request in enumerate(requests) if request.options.wants_scores]
    assert [together[i].scores for i in asked] == [alone[i].scores for i in asked]
    assert [o.hypotheses for o in together] == [o.hypotheses for o in alone]
    assert all(outcome.healthy for outcome in [*together, *alone])


@pytest.mark.parametrize(
    ("kind", "threads"),
    [({}, 1), ({}, 2), (BART_LIKE, 1), (T5_LIKE, 1), (TENSOR2TENSOR, 1)],
    ids=["marian", "marian-2-threads", "bart", "t5", "m2m100"],
    indirect=["threads"],
)
@KERNELS
def test_random_company_changes_no_bit(precision: str, threads: int, kind: dict[str, Any]) -> None:
    network = in_precision(tiny_network(**kind), precision)
    rng = random.Random(threads)
    count, max_tokens = (30 if kind else 200, 16) if threads == 1 else (6, 4)  # two are slow
    requests = random_requests(rng, count, vocabulary=96, max_source=40, max_tokens=max_tokens)

    together = run_together(runner(network, rows=12, latent_bytes=2**14), requests, rng)

    assert_same(requests, together, [alone(network, r) for r in requests])
    seen = {token for outcome in together for token in outcome.tokens}
    assert threads > 1 or len(seen) > (24 if kind else 64), "too uniform"


@PRECISIONS
def test_random_company_changes_no_bit_of_a_loaded_model(
    precision: Precision, threads: int
) -> None:
    network = load(BUNDLED, slots=1, precision=precision).runner.network
    rng = random.Random(threads)
    requests = random_requests(
        rng,
        16 if threads == 1 else 3,
        vocabulary=8003,
        max_source=60 // threads,
        max_tokens=6 // threads,
    )

    together = run_together(runner(network, rows=9, latent_bytes=2**17), requests, rng)

    assert_same(requests, together, [alone(network, r) for r in requests])


@KINDS
@KERNELS
@pytest.mark.parametrize("company", [1, 7, 8, 31])
def test_no_number_of_neighbours_changes_a_bit(
    precision: str, company: int, kind: dict[str, Any]
) -> None:
    network = in_precision(tiny_network(**kind), precision)
    rng = random.Random(company)
    options = DecodingOptions(max_new_tokens=4, min_new_tokens=4, wants_scores=True)
    requests = [
        Request(random_source(rng, 96, rng.randint(1, 24)), options) for _ in range(company + 1)
    ]

    together = run_together(runner(network, rows=32), requests, rng)

    assert_same(requests[:3], together[:3], [alone(network, r) for r in requests[:3]])


@KINDS
@KERNELS
@pytest.mark.parametrize("length", [1, 3, 8, 13])
def test_a_source_encoded_in_company_has_the_bits_of_one_encoded_alone(
    precision: Precision, length: int, kind: dict[str, Any]
) -> None:
    network = in_precision(tiny_network(**kind, width=256, encoder_heads=4), precision)
    rng = random.Random(length)
    sources = [random_source(rng, 96, length) for _ in range(5)]

    together = runner(network, rows=1, latent_bytes=2**20).latents.fetch(sources)

    for source, latent in zip(sources, together, strict=True):
        alone = runner(network, rows=1, latent_bytes=2**20).latents.fetch([source])
        assert torch.equal(latent, alone[0])


@KINDS
@KERNELS
def test_a_much_longer_neighbour_changes_no_bit(precision: Precision, kind: dict[str, Any]) -> None:
    network = in_precision(tiny_network(**kind), precision)
    rng = random.Random(5)
    long = DecodingOptions(max_new_tokens=70, min_new_tokens=70, temperature=1.0)
    short = DecodingOptions(max_new_tokens=20, temperature=1.0, wants_scores=True)
    requests = [Request(random_source(rng, 96, length), long) for length in (500, 201)]
    requests += [Request(random_source(rng, 96, rng.randint(1, 40)), short) for _ in range(10)]

    together = run_together(runner(network, rows=3), requests, rng)

    assert_same(requests[2:], together[2:], [alone(network, r) for r in requests[2:]])


def test_scores_of_a_large_vocabulary_do_not_depend_on_company(threads: int) -> None:
    network = tiny_network(vocabulary=40_000, width=8, encoder_layers=1, decoder_layers=1)
    rng = random.Random(3)
    options = DecodingOptions(max_new_tokens=5, min_new_tokens=5, wants_scores=True)
    requests = [Request(random_source(rng, 40_000, 9), options) for _ in range(6)]

    together = run_together(runner(network, rows=6), requests, rng)

    assert_same(requests, together, [alone(network, r) for r in requests])


def test_a_row_that_asked_for_no_scores_gets_none_whatever_its_neighbour_asked() -> None:
    rng = random.Random(0)
    silent = DecodingOptions(max_new_tokens=3, min_new_tokens=3)
    scored = DecodingOptions(max_new_tokens=3, min_new_tokens=3, wants_scores=True)
    requests = [Request(random_source(rng, 96, 9), options) for options in (silent, scored)]

    outcomes = run_together(runner(tiny_network(), rows=2), requests, rng)

    assert outcomes[0].scores == [0.0, 0.0, 0.0]
    assert all(score < 0 for score in outcomes[1].scores)


def test_a_seed_decides_the_tokens() -> None:
    network = tiny_network()
    source = random_source(random.Random(0), 96, 20)

    def draw(seed: int) -> list[int]:
        options = DecodingOptions(max_new_tokens=12, min_new_tokens=12, temperature=1.5, seed=seed)
        return run(runner(network, rows=1), Request(source, options)).tokens

    assert draw(7) == draw(7)
    assert len({tuple(draw(seed)) for seed in range(8)}) == 8


def test_the_end_can_be_forbidden_to_measure_fixed_lengths() -> None:
    network = tiny_network()
    assert network.logits_bias is not None
    network.logits_bias[0] = 100.0
    endless = Runner(network, rows=1, max_target=9, latent_bytes=0, end_is_forbidden=True)

    outcome = run(endless, Request((5, 6, 0), DecodingOptions(max_new_tokens=9)))

    assert len(outcome.tokens) == 9
    assert 0 not in outcome.tokens
