"""Cached decoding equals the whole network at once."""

import random
from typing import Any

import pytest
import torch
from transformers import T5Config
from transformers.models.m2m_100.modeling_m2m_100 import M2M100SinusoidalPositionalEmbedding
from transformers.models.t5.modeling_t5 import T5Attention

from model import Arrival, DecodingOptions, Runner
from model.layers import RMSNorm, attend
from model.positions import RelativeBias, buckets, sinusoidal, tensor2tensor
from model.transformer import readable_bias
from tests.model.driver import random_source
from tests.model.networks import BART_LIKE, PAD, T5_LIKE, TENSOR2TENSOR, cached_logits, tiny_network

SHAPES = pytest.mark.parametrize(
    "shape",
    [
        {"norm": "post"},
        {"norm": "post", "activation": "silu", "encoder_heads": 4, "decoder_layers": 1},
        {"norm": "pre", "has_final_norm": True, "activation": "gelu"},
        BART_LIKE,
        T5_LIKE,
        TENSOR2TENSOR,
        {"shares_embedding": False, "own_source_vocabulary": 120, "ties_output": False},
    ],
    ids=["post", "post-silu", "pre", "bart", "t5", "tensor2tensor", "apart"],
)


def padded(sources: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, sources))
    rows = [[*source, *[PAD] * (longest - len(source))] for source in sources]
    return torch.tensor(rows), torch.tensor([len(source) for source in sources])


@SHAPES
def test_logits_through_the_cache_equal_the_whole_forward_pass(shape: dict[str, Any]) -> None:
    network = tiny_network(**shape).double()  # sharp attention would enlarge float32's rounding
    rng = random.Random(1)
    sources = [random_source(rng, 96, length) for length in (1, 7, 33, 60)]
    source, lengths = padded(sources)
    target = torch.randint(1, PAD, (4, 70), generator=torch.Generator().manual_seed(1))
    target[:, 0] = PAD

    logits = cached_logits(network, sources, target)

    expected = network(source, lengths, target)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@SHAPES
def test_a_greedy_target_is_the_argmax_of_the_whole_forward_pass(shape: dict[str, Any]) -> None:
    network = tiny_network(**shape)
    sources = [random_source(random.Random(2), 96, length) for length in (3, 20, 41)]
    runner = Runner(network, rows=3, max_target=50, latent_bytes=0)
    options = DecodingOptions(max_new_tokens=50)
    runner.admit([Arrival(row, source, options) for row, source in enumerate(sources)])

    tokens = torch.tensor([runner.launch([0, 1, 2]).result().tokens for _ in range(50)]).T

    target = torch.cat([torch.full((3, 1), PAD), tokens[:, :-1]], 1)
    logits = network(*padded(sources), target)
    logits[:, :, PAD] = float("-inf")
    assert torch.equal(logits.argmax(2), tokens)


def test_padding_of_a_source_never_changes_its_real_positions() -> None:
    network = tiny_network()
    source = torch.randint(1, PAD, (1, 12), generator=torch.Generator().manual_seed(0))
    longer = torch.cat([source, torch.full((1, 20), 7)], 1)

    expected = network.encode(source, torch.tensor([12]))

    torch.testing.assert_close(network.encode(longer, torch.tensor([12]))[:, :12], expected)


def test_unreadable_columns_never_change_the_result() -> None:
    generator = torch.Generator().manual_seed(0)
    query, keys, values = torch.randn(3, 2, 4, 5, 8, generator=generator)
    bias = readable_bias(torch.tensor([3, 3]), 5, torch.float32)

    expected = attend(query, keys[:, :, :3], values[:, :, :3], bias[..., :3])
    keys[:, :, 3:] = values[:, :, 3:] = 1e4

    torch.testing.assert_close(attend(query, keys, values, bias), expected)


def test_positions_are_sines_then_cosines() -> None:
    table = sinusoidal(512, 32)

    assert table.shape == (512, 32)
    assert torch.equal(table[0], torch.tensor([0.0] * 16 + [1.0] * 16))
    torch.testing.assert_close(table[9, 1], torch.tensor(9 / 10000 ** (2 / 32)).sin())
    torch.testing.assert_close(table[9, 17], torch.tensor(9 / 10000 ** (2 / 32)).cos())


def test_rows_of_a_norm_do_not_depend_on_their_neighbours(threads: int) -> None:
    generator = torch.Generator().manual_seed(threads)
    for width in (32, 33, 768, 1024, 4096):
        norm = RMSNorm(width, 1e-6)
        hidden = torch.randn(300, width, generator=generator)
        everything = norm(hidden)
        for count in (1, 2, 3, 7, 8, 16, 64):
            assert torch.equal(norm(hidden[:count]), everything[:count]), (width, count)


def test_distances_share_buckets_as_in_the_reference() -> None:
    theirs = T5Attention._relative_position_bucket
    distances = torch.arange(200)
    for count, limit in ((32, 128), (16, 40), (8, 20), (6, 7)):
        ours = buckets(distances, count, limit)
        assert torch.equal(ours, theirs(-distances, False, count, limit))
        assert int(ours.max()) == count - 1


@pytest.mark.parametrize("is_causal", [True, False])
def test_the_relative_bias_is_the_references(is_causal: bool) -> None:
    config: Any = T5Config(num_heads=3, is_decoder=is_causal, relative_attention_max_distance=50)
    reference: Any = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    ours = RelativeBias(32, 50, 3, is_causal=is_causal)
    ours.weight.data = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    reference.relative_attention_bias.weight.data = ours.weight.data

    bias = ours(torch.arange(90)[None], 90)

    expected = reference.compute_bias(90, 90)
    readable = torch.ones(90, 90).tril().bool() if is_causal else torch.ones(90, 90).bool()
    assert torch.equal(bias[..., readable], expected[..., readable])
    assert torch.equal(ours(torch.tensor([[5], [77]]), 90)[1], bias[0, :, 77:78])


def test_tensor2tensors_positions_are_the_references() -> None:
    expected = M2M100SinusoidalPositionalEmbedding.get_embedding(300, 34, 1)

    assert torch.equal(tensor2tensor(300, 34, 1), expected)


def test_attention_is_collected_only_when_asked_for() -> None:
    network = tiny_network()
    latents = network.encode(torch.tensor([[5, 6, 0]]), torch.tensor([3]))
    memory = network.memory(latents, torch.tensor([3]))
    target, positions = torch.tensor([[PAD, 7]]), torch.tensor([[0, 1]])
    attention: list[torch.Tensor] = []

    silent = network.decode(target, positions, memory)
    logits = network.decode(target, positions, memory, attention)

    assert torch.equal(silent, logits)
    assert [tuple(weights.shape) for weights in attention] == [(1, 2, 2, 3)] * 2
    torch.testing.assert_close(attention[0].sum(-1), torch.ones(1, 2, 2))


def test_a_float16_encoder_saturates_instead_of_overflowing() -> None:
    network = tiny_network(norm="pre", has_final_norm=True).half()
    for layer in network.encoder:
        layer.get_submodule("feed_forward.down").get_parameter("bias").data[:] = 6e4

    latents = network.encode(torch.tensor([[5, 6, 0]]), torch.tensor([3]))

    assert bool(latents.isfinite().all())
