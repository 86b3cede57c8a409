"""Sources: who reads which, from latents to keys and values of every layer's cross-attention."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from model.captured.device import Device, Mark, on_device
from model.captured.memory import Memory
from model.captured.network import linear
from model.captured.weights import Linear
from model.latent_cache import Source
from model.sources import Held, SourceTable


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
        self._table = SourceTable(sources)
        self._written: dict[Hashable, Mark] = {}  # after which it can be read; until that is seen

    def __contains__(self, source: Source) -> bool:
        return source in self._table

    def index(self, row: int) -> int:
        """Return where the source of a row is."""
        return self._table.index(self._table.read_by(row))

    def pending(self, row: int) -> Mark | None:
        """Return the mark after which the source of a row can be read, unless it can be now."""
        source = self._table.read_by(row)
        mark = self._written.get(source)
        if mark is None or not mark.query():
            return mark
        del self._written[source]
        return None

    def add(self, sources: Sequence[Source], latents: Sequence[Tensor]) -> None:
        """Take in sources by their latents [length, width]; nothing waits for the device."""
        if not sources:
            return
        indices = self._table.next_indices(len(sources))
        marks: list[Mark] = []
        with self._device.encoding():
            for some in _chunks([len(latent) for latent in latents], self._most_tokens):
                self._write(indices[some], latents[some])
                marks += [self._device.mark()] * len(indices[some])
        for source in sources:
            self._table.add(source)
        self._written |= dict(zip(sources, marks, strict=True))

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
        self._table.bind(row, source)

    def release(self, row: int, *, is_clean: bool) -> None:
        """Let a row read nothing; its source goes with its last row."""
        if dropped := self._table.release(row, is_clean=is_clean):
            self._drop(dropped)

    def drop_unread(self) -> None:
        """Give up every source that no row is bound to."""
        for dropped in self._table.drop_unread():
            self._drop(dropped)

    def _drop(self, source: Held) -> None:
        self._written.pop(source.key, None)
        if not source.is_clean:
            with self._device.decoding():
                self._memory.clean_source(source.index)

    def __repr__(self) -> str:
        return repr(self._table)


def _chunks(lengths: Sequence[int], most_tokens: int) -> list[slice]:
    """Cut sources into runs of at most so many tokens, or one source."""
    cuts, tokens = [0], 0
    for place, length in enumerate(lengths):
        if tokens and tokens + length > most_tokens:
            cuts.append(place)
            tokens = 0
        tokens += length
    return [slice(*pair) for pair in zip(cuts, [*cuts[1:], len(lengths)], strict=True)]
