"""Eight-bit layers: what they compute, that no row sees another, and where they cannot run."""

import logging
import os
import platform
import random
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sacrebleu
import torch
from torch import Tensor, nn

from model import BUNDLED, DecodingOptions, Model, Runner, UnsupportedModel, load
from model.backends import cpu
from model.backends.cpu import HalfEmbedding, Int8Linear
from tests.model.driver import Request, run_alone, run_together
from tests.model.networks import tiny_network
from training.evaluate import translate

ROOT = Path(__file__).parent.parent.parent
SHAPES = [(256, 1024), (1024, 256), (33, 7), (3, 5), (1, 1), (30, 97), (255, 8003), (64, 40_001)]

pytestmark = pytest.mark.skipif(cpu.activation_steps() == 0, reason="no int8 operators here")


@pytest.fixture(scope="module")
def bundled_int8() -> Model:
    return load(BUNDLED, slots=64, precision="int8")


def random_layer(width: int, out: int, *, has_bias: bool = True) -> tuple[nn.Linear, Int8Linear]:
    torch.manual_seed(width + out)
    linear = nn.Linear(width, out, bias=has_bias).requires_grad_(False)
    return linear, Int8Linear(linear.weight, linear.bias)


def reference(linear: nn.Linear, rows: Tensor) -> Tensor:
    """What the eight-bit layer is defined to compute, in whole numbers and float64."""
    steps = cpu.activation_steps()
    scales = linear.weight.abs().amax(1, keepdim=True) / 127
    largest = rows.abs().amax(1, keepdim=True)
    sums = (rows / largest * steps).round().double() @ (linear.weight / scales).round().double().T
    return sums * (largest / steps).double() * scales.T.double() + linear.bias.double()


@pytest.mark.parametrize(("width", "out"), SHAPES)
def test_a_layer_computes_what_it_is_defined_to(width: int, out: int) -> None:
    linear, int8 = random_layer(width, out)
    rows = torch.randn(16, width)

    difference = (int8(rows).double() - reference(linear, rows)).abs()

    # Equal but where a value stands between two steps and is rounded the other way.
    assert difference.max() < 8 / cpu.activation_steps() / width**0.5
    assert difference.median() < 1e-6


@pytest.mark.parametrize(("width", "out"), SHAPES)
def test_no_number_and_no_shape_of_rows_changes_a_bit(width: int, out: int, threads: int) -> None:
    _, int8 = random_layer(width, out)
    rows = torch.randn(64, width) * torch.rand(64, 1)
    alone = torch.cat([int8(row[None]) for row in rows])

    for count in range(1, 65):
        for first in {0, 64 - count}:
            some, expected = rows[first : first + count], alone[first : first + count]
            assert torch.equal(int8(some), expected)
            assert torch.equal(int8(some[None]), expected[None])
            assert torch.equal(int8(some[:, None]), expected[:, None])


def test_layers_without_bias_and_views_of_rows_give_the_same_bits() -> None:
    linear, int8 = random_layer(48, 20, has_bias=False)
    wide = torch.randn(6, 2, 96)
    view = wide[:, :, :48]

    assert linear.bias is None
    assert torch.equal(int8(view), int8(view.contiguous()))
    assert torch.equal(int8(view), torch.stack([int8(rows) for rows in view]))


def test_rows_of_zeros_and_of_extreme_sizes_are_right() -> None:
    linear, int8 = random_layer(64, 32)
    rows = torch.randn(4, 64)
    rows *= torch.tensor([0.0, 1e-42, 1e-20, 1e36])[:, None]

    found = int8(rows)

    assert torch.equal(found[:2], linear.bias.expand(2, -1))
    torch.testing.assert_close(found[2], linear.bias)
    torch.testing.assert_close(found[3], linear(rows)[3], rtol=0, atol=3e34)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_spoils_its_own_row_entirely_and_no_other(bad: float) -> None:
    _, int8 = random_layer(33, 70)
    rows = torch.randn(9, 33)
    expected = int8(rows)
    rows[4, 17] = bad

    found = int8(rows)

    assert not found[4].isfinite().any()
    assert torch.equal(found[:4], expected[:4])
    assert torch.equal(found[5:], expected[5:])


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_of_extremes_do_not_saturate(sign: int) -> None:
    int8 = Int8Linear(torch.full((40, 4096), float(sign)), None)

    assert torch.equal(int8(torch.ones(3, 4096)), torch.full((3, 40), 4096.0 * sign))
    assert torch.equal(int8(-torch.ones(3, 4096)), torch.full((3, 40), -4096.0 * sign))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 instructions")
def test_a_cpu_whose_sums_saturate_gets_seven_bits() -> None:
    script = (
        "import torch; from model.backends import cpu\n"
        "layer = cpu.Int8Linear(torch.ones(40, 4096), None)\n"
        "print(cpu.activation_steps(), layer(torch.ones(3, 4096)).unique().tolist())"
    )
    older = os.environ | {"FBGEMM_ENABLE_INSTRUCTIONS": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=older
    )
    assert done.stdout == "63 [4096.0]\n", done.stderr


def test_whatever_requires_gradients_quantising_leaves_no_float32_weights_behind() -> None:
    network = tiny_network().requires_grad_(True)
    held = [weakref.ref(weight) for weight in network.parameters() if weight.dim() == 2]

    cpu.quantise(network)

    assert [weight() for weight in held] == [None] * (1 + 2 * 6 + 2 * 10)


def test_quantising_replaces_every_linear_layer_and_halves_the_table() -> None:
    network = tiny_network()
    table = network.embedding.weight

    cpu.quantise(network)

    kinds = [type(module) for module in network.modules()]
    assert nn.Linear not in kinds
    assert kinds.count(Int8Linear) == 2 * 4 + 2 * 7 + 1  # encoder, decoder, output
    assert isinstance(network.embedding, HalfEmbedding)
    tokens = torch.tensor([[3, 95]])
    torch.testing.assert_close(network.embedding(tokens), table[tokens], rtol=1e-3, atol=0)


def test_a_table_beyond_the_range_of_float16_stays_as_it_is() -> None:
    network = tiny_network()
    network.embedding.weight.data[7, 7] = 70_000.0

    cpu.quantise(network)

    assert isinstance(network.embedding, nn.Embedding)
    assert network.embedding.weight[7, 7] == 70_000.0


def test_a_poisoned_source_is_unhealthy_and_changes_no_neighbour() -> None:
    network = tiny_network()
    cpu.quantise(network)
    network.embedding.get_buffer("table")[90] = float("nan")  # read by the encoder only
    options = DecodingOptions(max_new_tokens=6, min_new_tokens=6, wants_scores=True)
    requests = [Request((5, 6 + n, 7, 0), options) for n in range(4)]
    poisoned = [*requests[:2], Request((5, 90, 0), options), *requests[2:]]

    def runner() -> Runner:
        return Runner(network, rows=5, max_target=20, latent_bytes=0)

    found = run_together(runner(), poisoned, random.Random(0))

    assert [outcome.healthy for outcome in found] == [True, True, False, True, True]
    del found[2]
    assert found == [run_alone(runner(), request) for request in requests]


def test_a_loaded_model_counts_the_parameters_of_its_checkpoint(
    bundled: Model, bundled_int8: Model
) -> None:
    assert bundled_int8.card == replace(bundled.card, precision="int8")


def test_int8_translates_as_float32_does(
    bundled: Model, bundled_int8: Model, heldout: list[tuple[str, str]]
) -> None:
    """Over all 1,000 lines BLEU differs by at most 0.1; of 100 lines one word may be 0.3."""
    english, german = zip(*heldout[:100], strict=True)

    exact = translate(bundled, english, "de", slots=64)
    int8 = translate(bundled_int8, english, "de", slots=64)

    loss = (
        sacrebleu.corpus_bleu(exact, [german]).score - sacrebleu.corpus_bleu(int8, [german]).score
    )
    same = sum(a == b for a, b in zip(exact, int8, strict=True))
    assert loss <= 1.0
    assert same >= 75


@pytest.fixture
def no_operators(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def missing(*_: object) -> None:
        raise NotImplementedError("quantized::linear_prepack")

    cpu.activation_steps.cache_clear()
    monkeypatch.setattr(cpu, "_pack", missing)
    yield
    cpu.activation_steps.cache_clear()


def test_int8_is_the_default_where_it_runs_and_only_on_cpus() -> None:
    assert load(BUNDLED, slots=1).card.precision == "int8"
    with pytest.raises(UnsupportedModel, match="CPUs only"):
        load(BUNDLED, device="meta", precision="int8")


@pytest.mark.usefixtures("no_operators")
def test_without_the_operators_the_default_is_float32_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert load(BUNDLED, slots=1).card.precision == "float32"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "using float32" in caplog.text


@pytest.mark.usefixtures("no_operators")
def test_without_the_operators_int8_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="choose float32"):
        load(BUNDLED, precision="int8")


@pytest.mark.parametrize(("hidden", "row_step"), [(64, 1), (40, 8)])
def test_rows_are_padded_where_activations_would_leave_some_over(
    hidden: int, row_step: int
) -> None:
    network = tiny_network(decoder_hidden=hidden)
    assert network.row_step == 8

    cpu.quantise(network)

    assert network.row_step == row_step
