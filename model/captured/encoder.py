"""Encoding in batches of bounded size: sources of like length together."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.captured.device import on_device
from model.kv_cache import round_up
from model.latent_cache import Source
from model.transformer import EncoderDecoder

LENGTH_STEP = 8


def batches(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Return which sources are encoded together, longest first: places in `lengths`.

    Args:
        most_tokens: of one batch, padding included, unless it is one source.
    """
    found: list[list[int]] = []
    room = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if room < 1:
            found.append([])
            room = max(most_tokens // round_up(lengths[place], LENGTH_STEP), 1)
        found[-1].append(place)
        room -= 1
    return found


def encode(
    network: EncoderDecoder, sources: Sequence[Source], most_tokens: int, device: torch.device
) -> list[Tensor]:
    """Return the latents [length, width] of distinct sources; the host does not wait for them."""
    found: dict[int, Tensor] = {}
    for places in batches([len(source) for source in sources], most_tokens):
        lengths = [len(sources[place]) for place in places]
        longest = min(round_up(lengths[0], LENGTH_STEP), network.config.max_positions)
        padded = np.zeros((len(places), longest), np.int64)  # what is not read is some token
        for line, place in zip(padded, places, strict=True):
            line[: len(sources[place])] = sources[place]
        batch = network.encode(
            on_device(padded, torch.int64, device), on_device(lengths, torch.int64, device)
        )
        for place, latent, length in zip(places, batch, lengths, strict=True):
            found[place] = latent[:length].clone()
    return [found[place] for place in range(len(sources))]
