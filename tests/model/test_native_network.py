"""The compiled network computes what the eager int8 network does, its specification."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import model.native.network as native
from model import BUNDLED, load
from model.backends import cpu
from model.config import Precision
from model.native.network import NativeNetwork
from model.transformer import EncoderDecoder
from tests.model.native import KINDS, NEEDS_LIBRARY, Rows, random_tokens, smooth_network
from tests.model.networks import PAD, TENSOR2TENSOR, tiny_config

LENGTHS = (1, 2, 7, 13, 16, 17, 33, 40)
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
needs_int8 = pytest.mark.skipif(cpu.activation_steps() != 127, reason="no exact int8 operators")


def rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def assert_agrees(native: Tensor, int8: Tensor, exact: Tensor) -> None:
    """Rounding differs from the specification's by less than both differ from float32."""
    error = rms(int8 - exact)
    assert error < 0.04 * rms(exact), "too rough a network to tell"
    assert rms(native - exact) < 1.1 * error
    assert rms(native - int8) < 1.1 * error


def encodings(network: EncoderDecoder, sources: list[tuple[int, ...]]) -> Tensor:
    each = [network.encode(torch.tensor([s]), torch.tensor([len(s)]))[0] for s in sources]
    return torch.cat(each)


def logits(network: EncoderDecoder, sources: list[tuple[int, ...]], targets: Tensor) -> Tensor:
    return torch.cat(
        [
            network(torch.tensor([source]), torch.tensor([len(source)]), target[None])
            for source, target in zip(sources, targets, strict=True)
        ]
    )


def quantised(**kind: Any) -> EncoderDecoder:
    network = smooth_network(**kind)
    cpu.quantise(network)
    return network


def assert_computes(
    compiled: NativeNetwork,
    int8: EncoderDecoder,
    exact: EncoderDecoder,
    sources: list[tuple[int, ...]],
    targets: Tensor,
) -> None:
    assert_agrees(
        torch.cat(compiled.encode(sources)), encodings(int8, sources), encodings(exact, sources)
    )
    assert_agrees(
        Rows(compiled, sources).feed_all(targets),
        logits(int8, sources, targets),
        logits(exact, sources, targets),
    )


@NEEDS_LIBRARY
@needs_int8
@every_kind
def test_encodings_and_logits_agree_with_the_eager_int8_network(kind: dict[str, Any]) -> None:
    exact, int8 = smooth_network(**kind), quantised(**kind)
    compiled = NativeNetwork(smooth_network(**kind), 1)
    sources = random_tokens(1, LENGTHS, exact.config.source_vocabulary)
    targets = torch.tensor(random_tokens(2, [20] * len(sources), exact.config.vocabulary))

    assert_computes(compiled, int8, exact, sources, targets)


@NEEDS_LIBRARY
@needs_int8
def test_padding_tokens_stand_nowhere_where_positions_count_the_others() -> None:
    exact, int8 = smooth_network(**TENSOR2TENSOR), quantised(**TENSOR2TENSOR)
    compiled = NativeNetwork(smooth_network(**TENSOR2TENSOR), 1)
    sources = [(5, PAD, PAD, 7, PAD, 9, 3, 0), (PAD, 4), (3, PAD), (PAD,)]
    targets = torch.tensor([[PAD, 5, PAD, 6], [PAD, PAD, 7, 8], [1, 2, 3, 4], [9, PAD, 9, PAD]])

    assert_computes(compiled, int8, exact, sources, targets)


@NEEDS_LIBRARY
@every_kind
def test_attention_is_that_of_the_float32_network(kind: dict[str, Any]) -> None:
    exact, compiled = smooth_network(**kind), NativeNetwork(smooth_network(**kind), 1)
    source, target = random_tokens(3, [13, 6], 70)
    rows = Rows(compiled, [source])
    found = [rows.feed({0: token}).attention for token in target]
    latents = exact.encode(torch.tensor([source]), torch.tensor([13]))
    expected: list[Tensor] = []
    memory = exact.memory(latents, torch.tensor([13]))
    exact.decode(torch.tensor([target]), torch.arange(6)[None], memory, expected)

    for position, weights in enumerate(found):
        assert weights is not None
        for layer in range(2):
            wanted = expected[layer][0, :, position]
            torch.testing.assert_close(weights[layer, 0, :, :13], wanted, rtol=0.2, atol=0.02)
        assert not weights[:, :, :, 13:].any()


@NEEDS_LIBRARY
@pytest.mark.parametrize("threads", [2, 3])
@every_kind
def test_no_number_of_threads_changes_a_bit(kind: dict[str, Any], threads: int) -> None:
    single = NativeNetwork(smooth_network(**kind), 1)
    several = NativeNetwork(smooth_network(**kind), threads, thread_products=1)
    sources = random_tokens(1, LENGTHS, single.config.source_vocabulary)
    targets = torch.tensor(random_tokens(2, [5] * len(sources), single.config.vocabulary))

    for one, other in zip(single.encode(sources), several.encode(sources), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(
        Rows(single, sources).feed_all(targets), Rows(several, sources).feed_all(targets)
    )
    rows, others = Rows(single, sources), Rows(several, sources)
    for tokens in targets.T.tolist():
        found = rows.feed(dict(enumerate(tokens)), widths=7)
        again = others.feed(dict(enumerate(tokens)), widths=7)
        assert (found.tokens == again.tokens).all()
        assert (found.values == again.values).all()


@NEEDS_LIBRARY
def test_sources_of_more_tokens_than_are_encoded_together_have_the_bits_of_each_alone() -> None:
    compiled = NativeNetwork(smooth_network(), 1)
    sources = random_tokens(4, (200, 100, 256, 1, 300, 2, 255), 96)

    for source, latent in zip(sources, compiled.encode(sources), strict=True):
        assert torch.equal(compiled.encode([source])[0], latent)


@NEEDS_LIBRARY
def test_a_table_beyond_the_range_of_half_precision_stays_in_float32() -> None:
    network, changed = smooth_network(), smooth_network()
    for each in (network, changed):
        each.embedding.weight.data[7] *= 1e5
    changed.embedding.weight.data[5, 3] += 1e-4  # which half precision would not show

    one, other = (NativeNetwork(each, 1).encode([(5,)])[0] for each in (network, changed))

    assert not torch.equal(one, other)
    assert one.isfinite().all()


def no_library() -> None:
    return None


def test_without_the_library_int8_is_that_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", no_library)

    loaded = load(BUNDLED, slots=1, precision="int8")

    assert isinstance(loaded.runner.network, EncoderDecoder)
    assert isinstance(loaded.runner.network.output, cpu.Int8Linear)
    assert loaded.card.precision == "int8"
    with pytest.raises(RuntimeError, match="library is not there"):
        NativeNetwork(smooth_network(), 1)


@NEEDS_LIBRARY
def test_a_loaded_int8_network_is_the_compiled_one_with_the_same_card() -> None:
    loaded = load(BUNDLED, slots=1, precision="int8")
    assert isinstance(loaded.runner.network, NativeNetwork)
    assert loaded.card.parameters == load(BUNDLED, slots=1, precision="float32").card.parameters


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_other_precisions_never_use_the_library(tiny_folder: Path, precision: Precision) -> None:
    network = load(tiny_folder, slots=1, precision=precision).runner.network
    assert isinstance(network, EncoderDecoder)


@NEEDS_LIBRARY
@pytest.mark.parametrize(
    ("heads", "expected"),  # of encoder and decoder, in a width of 896
    [((14, 14), True), ((7, 7), True), ((7, 14), True), ((8, 8), False), ((7, 8), False)],
)
def test_widths_of_heads_that_the_library_lacks_are_left_to_pytorch(
    heads: tuple[int, int],
    expected: bool,
) -> None:
    config = tiny_config(width=896, encoder_heads=heads[0], decoder_heads=heads[1])
    assert native.runs(config) == expected
