"""Position embeddings."""

import torch
from torch import Tensor


def sinusoidal(positions: int, width: int) -> Tensor:
    """Return [positions, width] float32: all sines in the first half, all cosines in the second.

    Source: Vaswani et al. (2017), section 3.5, in the concatenated layout that
    `MarianSinusoidalPositionalEmbedding` of transformers uses.
    """
    exponent = 2 * torch.arange((width + 1) // 2, dtype=torch.float64) / width
    angle = torch.arange(positions, dtype=torch.float64)[:, None] / 10000**exponent
    return torch.cat([angle.sin(), angle[:, : width // 2].cos()], dim=1).float()
