"""Where a token stands: tables of position embeddings, and biases by distance.

What is computed is computed on the CPU whatever the default device, so that it is the same on all
and is there in a network whose parameters have no memory yet.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig


def sinusoidal(positions: int, width: int) -> Tensor:
    """Return [positions, width] float32: all sines in the first half, all cosines in the second.

    Source: Vaswani et al. (2017), section 3.5, in the concatenated layout that
    `MarianSinusoidalPositionalEmbedding` of transformers uses.
    """
    exponent = 2 * torch.arange((width + 1) // 2, dtype=torch.float64, device="cpu") / width
    angle = torch.arange(positions, dtype=torch.float64, device="cpu")[:, None] / 10000**exponent
    return torch.cat([angle.sin(), angle[:, : width // 2].cos()], dim=1).float()


def tensor2tensor(positions: int, width: int, padding: int) -> Tensor:
    """Return [positions, width] float32 sinusoids with other wavelengths than `sinusoidal`.

    Args:
        padding: the row of zeros that padding tokens get.

    Source: tensor2tensor's `get_timing_signal_1d`, in float32 throughout as fairseq and
    `M2M100SinusoidalPositionalEmbedding` of transformers compute it.
    """
    half = width // 2
    scale = torch.exp(torch.arange(half, device="cpu").float() * -(math.log(10000) / (half - 1)))
    angle = torch.arange(positions, device="cpu").float()[:, None] * scale
    table = torch.cat([angle.sin(), angle.cos(), angle.new_zeros(positions, width % 2)], dim=1)
    table[padding] = 0
    return table


class PositionTable(nn.Module):
    """An embedding for each position: learned, or computed and in no checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._offset = config.position_offset
        self._padding = config.pad if config.positions == "tensor2tensor" else None
        rows = self._offset + max(config.max_positions, config.max_target)
        self.weight: Tensor
        if config.positions == "learned":
            self.weight = nn.Parameter(torch.zeros(rows, config.width))
        elif config.positions == "sinusoidal":
            self.register_buffer("weight", sinusoidal(rows, config.width), persistent=False)
        else:
            table = tensor2tensor(rows, config.width, self._offset - 1)
            self.register_buffer("weight", table, persistent=False)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return [..., width] for tokens at positions, broadcastable to [...]."""
        rows = positions + self._offset if self._offset else positions
        if self._padding is not None:  # a padding token stands nowhere
            rows = torch.where(tokens == self._padding, self._offset - 1, rows)
        return F.embedding(rows, self.weight)


def buckets(distances: Tensor, count: int, limit: int) -> Tensor:
    """Return which of `count` buckets each distance falls in, int64.

    Half of the buckets hold one distance each, the others grow with its logarithm; the last
    holds everything from `limit` on.

    Args:
        distances: int64, not negative.

    Source: Raffel et al. (2020), section 2.1, arXiv:1910.10683, as
    `T5Attention._relative_position_bucket` of transformers computes it, in float32.
    """
    exact = count // 2
    growth = torch.log(distances.float() / exact) / math.log(limit / exact)
    far = exact + (growth.clamp(min=0) * (count - exact)).long()
    return torch.where(distances < exact, distances, far.clamp(max=count - 1))


class RelativeBias(nn.Module):
    """A learned bias for each attention head by how far a key is from a query."""

    def __init__(self, count: int, limit: int, heads: int, *, is_causal: bool) -> None:
        """Hold `count` buckets up to a distance of `limit`; keys after a query have half of them.

        A causal one has no keys after a query, and all its buckets look back.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count, heads))
        self._after = 0 if is_causal else count // 2  # the first bucket of keys after a query
        distances = torch.arange(limit + 1, device="cpu")
        self.by_distance: Tensor
        table = buckets(distances, count - self._after, limit)
        self.register_buffer("by_distance", table, persistent=False)

    def forward(self, queries: Tensor, keys: int) -> Tensor:
        """Return [rows, heads, length, keys], contiguous, for queries at positions [rows, length].

        Keys stand at the positions 0 to `keys` - 1; those after a causal query get any bias.
        """
        behind = queries[..., None] - torch.arange(keys, device=queries.device)
        index = self.by_distance[behind.abs().clamp(max=len(self.by_distance) - 1)]
        if self._after:
            index = index + self._after * (behind < 0)
        return self.weight[index].permute(0, 3, 1, 2).contiguous()
