"""What tests of the compiled library share: kinds of networks, and rows fed token by token."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from model.native.cache import Findings, NativeCache
from model.native.network import NativeNetwork, is_available
from model.transformer import EncoderDecoder
from tests.model.networks import BART_LIKE, T5_LIKE, TENSOR2TENSOR, tiny_config

NEEDS_LIBRARY = pytest.mark.skipif(
    not is_available(), reason="the compiled library was not built, or is not for this CPU"
)
KINDS: dict[str, dict[str, Any]] = {
    "marian": {},  # heads of 16
    "bart": BART_LIKE,
    "t5": T5_LIKE,  # heads of 24
    "m2m100": TENSOR2TENSOR,
    "two-tables-silu": {
        "activation": "silu",
        "is_gated": True,
        "norm": "pre",
        "own_source_vocabulary": 70,
        "shares_embedding": False,
        "ties_output": False,
    },
    "no-biases-width-80": {
        "has_linear_bias": False,
        "has_logits_bias": False,
        "width": 80,
        "encoder_heads": 5,
        "decoder_heads": 5,
    },
    "heads-of-32-odd-sizes": {
        "vocabulary": 333,  # two chunks of logits, and some
        "width": 96,
        "encoder_heads": 3,
        "decoder_heads": 3,
        "encoder_hidden": 100,
        "decoder_hidden": 72,
        "activation": "gelu_new",
    },
    "heads-of-64-pre-norm": {
        "width": 64,
        "encoder_heads": 2,
        "decoder_heads": 1,
        "has_embedding_norm": True,
        "norm": "pre",
        "norm_epsilon": 0.3,
        "has_final_norm": True,
        "positions": "learned",
        "position_offset": 2,
    },
    "uneven-heads": {"width": 36, "encoder_heads": 4, "decoder_heads": 3},  # of 9 and 12
}


def smooth_network(**changes: Any) -> EncoderDecoder:
    """Return a random network in which rounding hardly grows, and no parameter may be missed."""
    network = EncoderDecoder(tiny_config(**changes))
    config, generator = network.config, torch.Generator().manual_seed(0)
    unscaled = 1.0 if config.is_attention_scaled else config.head_dim**-0.25
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            value = 0.3 * noise + name.endswith("weight")
        elif "embedding" in name:
            value = noise / config.embedding_scale
        elif "positions" in name or "relative" in name or parameter.dim() == 1:
            value = 0.5 * noise
        else:
            gain = unscaled if "query" in name or "key" in name else 1.0
            value = gain * noise / parameter.shape[1] ** 0.5
        parameter.data.copy_(value)
    return network.requires_grad_(False).eval()


class Rows:
    """Rows of a cache, each at its own position, fed whatever tokens a test likes."""

    def __init__(
        self, network: NativeNetwork, sources: Sequence[Sequence[int]], max_target: int = 64
    ) -> None:
        """Bind row i to source i."""
        self.cache = NativeCache(network, len(sources), max_target)
        self.cache.add_sources(range(len(sources)), network.encode(sources))
        self.positions = [0] * len(sources)
        for row in range(len(sources)):
            self.cache.bind(row, row)

    def feed(self, tokens: dict[int, int], widths: int | Sequence[int] = 0) -> Findings:
        """Let each row read its token; the findings are in the order of `tokens`."""
        rows = list(tokens)
        widths = [widths] * len(rows) if isinstance(widths, int) else widths
        positions = [self.positions[row] for row in rows]
        found = self.cache.step(
            rows,
            list(tokens.values()),
            positions,
            widths,
            logits_of=range(len(rows)),
            attention_to=64,
        )
        for row in rows:
            self.positions[row] += 1
        return found

    def feed_all(self, columns: Tensor) -> Tensor:
        """Let every row read its line of `columns` [rows, length]; returns logits of each."""
        found = [self.feed(dict(enumerate(tokens))).logits for tokens in columns.T.tolist()]
        return torch.stack([logits for logits in found if logits is not None], 1)


def random_tokens(seed: int, lengths: Sequence[int], vocabulary: int) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(rng.randrange(vocabulary) for _ in range(length)) for length in lengths]
