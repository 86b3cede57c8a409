"""LatentCache: encoder outputs kept for reuse, bounded in bytes, in front of the encoder."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from cachetools import LRUCache
from torch import Tensor

Source = tuple[int, ...]


class _Kept(NamedTuple):
    latent: Tensor
    is_known_finite: bool


def _bytes(kept: _Kept) -> int:
    return kept.latent.nbytes


def _is_finite(latent: Tensor) -> bool:
    """Look with NumPy where it can: PyTorch's threads would wake, and spin where others compute."""
    if latent.device.type == "cpu" and latent.dtype == torch.float32:
        return bool(np.isfinite(latent.numpy()).all())
    return bool(latent.isfinite().all())


class LatentCache:
    """Read-through and least recently used first: ask for latents, and what is missing is encoded.

    A latent that is not finite is handed out once and never again. On a CPU it is not kept; on
    another device nobody waits to look at it before it is first asked for again.
    """

    def __init__(self, encode: Callable[[Sequence[Source]], list[Tensor]], max_bytes: int) -> None:
        """Bound the cache.

        Args:
            encode: distinct sources -> latents [length, width], in the same order.
            max_bytes: of tensor data; 0 keeps nothing.
        """
        self._encode = encode
        self._latents: LRUCache[Source, _Kept] = LRUCache(max_bytes, getsizeof=_bytes)
        self.hits = 0
        self.misses = 0

    @property
    def bytes(self) -> int:
        """Tensor data held now."""
        return int(self._latents.currsize)

    def fetch(self, sources: Sequence[Source]) -> list[Tensor]:
        """Return the latents [length, width] of `sources`; equal ones are encoded once."""
        found = {s: kept for s in dict.fromkeys(sources) if (kept := self._kept(s)) is not None}
        missing = [s for s in dict.fromkeys(sources) if s not in found]
        encoded = dict(zip(missing, self._encode(missing), strict=True)) if missing else {}
        for source, latent in encoded.items():
            self.keep(source, latent)
        self.misses += len(missing)
        self.hits += len(sources) - len(missing)
        return [found[s] if s in found else encoded[s] for s in sources]

    def __contains__(self, source: Source) -> bool:
        return source in self._latents

    def keep(self, source: Source, latent: Tensor) -> None:
        """Keep a latent that was encoded elsewhere, if it may be kept."""
        if latent.nbytes <= self._latents.maxsize and (not latent.is_cpu or _is_finite(latent)):
            self._latents[source] = _Kept(latent, is_known_finite=latent.is_cpu)

    def _kept(self, source: Source) -> Tensor | None:
        kept: _Kept | None = self._latents.get(source)
        if kept is None or kept.is_known_finite:
            return kept and kept.latent
        if not _is_finite(kept.latent):
            del self._latents[source]
            return None
        self._latents[source] = _Kept(kept.latent, is_known_finite=True)
        return kept.latent

    def clear(self) -> None:
        """Forget every latent; the counts stay."""
        self._latents.clear()

    def __repr__(self) -> str:
        size, limit = self.bytes, int(self._latents.maxsize)
        return f"<LatentCache {len(self._latents)} latents, {size}/{limit} bytes>"
