"""Cached decoding equals the whole network at once."""

import random
from typing import Any

import pytest
import torch

from model import Arrival, DecodingOptions, Runner
from model.kv_cache import KVCache
from model.layers import attend
from model.positions import sinusoidal
from model.transformer import readable_bias
from tests.model.driver import random_source
from tests.model.networks import PAD, tiny_network

SHAPES = pytest.mark.parametrize(
    "shape",
    [
        {"norm": "post"},
        {"norm": "post", "activation": "silu", "encoder_heads": 4, "decoder_layers": 1},
        {"norm": "pre", "has_final_norm": True, "activation": "gelu"},
    ],
    ids=["post", "post-silu", "pre"],
)


def padded(sources: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, sources))
    rows = [[*source, *[PAD] * (longest - len(source))] for source in sources]
    return torch.tensor(rows), torch.tensor([len(source) for source in sources])


@SHAPES
def test_logits_through_the_cache_equal_the_whole_forward_pass(shape: dict[str, Any]) -> None:
    network = tiny_network(**shape)
    rng = random.Random(1)
    sources = [random_source(rng, 96, length) for length in (1, 7, 33, 60)]
    source, lengths = padded(sources)
    target = torch.randint(1, PAD, (4, 70), generator=torch.Generator().manual_seed(1))
    target[:, 0] = PAD
    cache = KVCache(network.config, 4, 64, 70, torch.float32, torch.device("cpu"))
    latents = network.encode(source, lengths)
    for row, tokens in enumerate(sources):
        pairs = network.source_keys_values(latents[row : row + 1, : len(tokens)])
        cache.add_source(tokens, [(keys[0], values[0]) for keys, values in pairs])
        cache.bind(row, tokens)

    steps = []
    for position in range(target.shape[1]):
        positions = torch.full((4,), position)
        memory = cache.step(torch.arange(4), positions)
        column = target[:, position : position + 1]
        steps.append(network.decode(column, positions[:, None], memory))

    expected = network(source, lengths, target)
    torch.testing.assert_close(torch.cat(steps, 1), expected, rtol=1e-4, atol=1e-4)


@SHAPES
def test_a_greedy_target_is_the_argmax_of_the_whole_forward_pass(shape: dict[str, Any]) -> None:
    network = tiny_network(**shape)
    sources = [random_source(random.Random(2), 96, length) for length in (3, 20, 41)]
    runner = Runner(network, rows=3, max_target=50, latent_bytes=0)
    options = DecodingOptions(max_new_tokens=50)
    runner.admit([Arrival((row,), source, options) for row, source in enumerate(sources)])

    tokens = torch.tensor(
        [[step.tokens[0] for step in runner.launch([0, 1, 2]).result()] for _ in range(50)]
    ).T

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
