"""Sources: who reads which, from latents to keys and values of every layer's cross-attention."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.captured.device import Device, Mark, on_device
from model.captured.memory import Memory
from model.captured.network import linear
from model.captured.weights import Linear
from model.latent_cache import Source


@dataclass(slots=True)
class _Held:
    index: int
    written: Mark | None  # after which it can be read; None once that has been seen
    rows: int = 0  # that read it
    is_clean: bool = True


class Sources:
    """Which sources are in memory. Each stays until its last row is released."""

    def __init__(
        self, memory: Memory, projection: Linear, device: Device, sources: int, most_tokens: int
    ) -> None:
        """Hold up to `sources`.

        Args:
            projection: as `Weights.source`.
            most_tokens: projected at once, or one source: those of a large network take 50 kB each.
        """
        self._most_tokens = most_tokens
        self._memory, self._projection, self._device = memory, projection, device
        self._free = list(reversed(range(sources)))
        self._held: dict[Source, _Held] = {}
        self._source_of: dict[int, Source] = {}  # by row

    def __contains__(self, source: Source) -> bool:
        return source in self._held

    def __len__(self) -> int:
        return len(self._held)

    @property
    def bound(self) -> int:
        """How many rows read one."""
        return len(self._source_of)

    def index(self, row: int) -> int:
        """Return where the source of a row is."""
        return self._held[self._source_of[row]].index

    def pending(self, row: int) -> Mark | None:
        """Return the mark after which the source of a row can be read, unless it can be now."""
        held = self._held[self._source_of[row]]
        if held.written is not None and held.written.query():
            held.written = None
        return held.written

    def add(self, sources: Sequence[Source], latents: Sequence[Tensor]) -> None:
        """Take in sources by their latents [length, width]; nothing waits for the device."""
        if not sources:
            return
        indices = self._free[-len(sources) :]
        held: list[_Held] = []
        with self._device.encoding():
            for some in _chunks([len(latent) for latent in latents], self._most_tokens):
                self._write(indices[some], latents[some])
                written = self._device.mark()
                held += [_Held(index, written) for index in indices[some]]
        del self._free[-len(sources) :]
        self._held.update(zip(sources, held, strict=True))

    def _write(self, indices: Sequence[int], latents: Sequence[Tensor]) -> None:
        """Project some latents at once, without padding, and scatter them to their places."""
        memory, device = self._memory, self._device.device
        lengths = [len(latent) for latent in latents]
        layers, _, heads, _, head_dim = memory.source_keys.shape
        projected = linear(torch.cat([*latents]), self._projection)
        by_head = projected.view(-1, layers, 2, heads, head_dim)
        starts = np.cumsum([0, *lengths[:-1]])
        places = np.repeat([[*indices], starts], lengths, axis=1)
        places[1] = np.arange(places.shape[1]) - places[1]
        index, position = on_device(places, torch.int64, device)
        for cells, values in zip(
            (memory.source_keys, memory.source_values), by_head.unbind(2), strict=True
        ):
            cells[:, index, :, position] = values  # [tokens, layers, heads, head_dim]
        which = on_device([[*indices], lengths], torch.int64, device)
        memory.source_length.index_copy_(0, which[0], which[1].int())

    def bind(self, row: int, source: Source) -> None:
        """Let a row read a source."""
        self._held[source].rows += 1
        self._source_of[row] = source

    def release(self, row: int, *, is_clean: bool) -> None:
        """Let a row read nothing; its source goes with its last row."""
        source = self._source_of.pop(row)
        held = self._held[source]
        held.rows -= 1
        held.is_clean &= is_clean
        if not held.rows:
            self._drop(source)

    def drop_unread(self) -> None:
        """Give up every source that no row is bound to."""
        for source, held in list(self._held.items()):
            if not held.rows:
                self._drop(source)

    def _drop(self, source: Source) -> None:
        held = self._held.pop(source)
        if not held.is_clean:
            with self._device.decoding():
                self._memory.clean_source(held.index)
        self._free.append(held.index)


def _chunks(lengths: Sequence[int], most_tokens: int) -> list[slice]:
    """Cut sources into runs of at most so many tokens, or one source."""
    cuts, tokens = [0], 0
    for place, length in enumerate(lengths):
        if tokens and tokens + length > most_tokens:
            cuts.append(place)
            tokens = 0
        tokens += length
    return [slice(*pair) for pair in zip(cuts, [*cuts[1:], len(lengths)], strict=True)]
