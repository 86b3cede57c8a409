"""KVCache: keys and values of running rows (self-attention) and their sources (cross)."""

import math
import mmap
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from model.config import ModelConfig
from model.sources import Held, SourceTable
from model.transformer import readable_bias

LENGTH_STEP = 32  # reads are padded to it, so that a row's result never depends on its neighbours'


def round_up(count: int, step: int) -> int:
    """Return the smallest multiple of `step` that is at least `count`."""
    return -(-count // step) * step


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros; on a CPU their memory is taken from the system only where it is written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # a huge page would make whole rows resident at once
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


class KVCache:
    """Two pools: rows, one per live hypothesis, and sources, one per distinct input.

    A row names its source; rows with equal sources share it, and it is freed with its last row.
    The pools are zeros, never uninitialised: a NaN in a masked column would still reach the output.
    """

    def __init__(
        self,
        config: ModelConfig,
        rows: int,
        max_source: int,
        max_target: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        layers, heads, head_dim = config.decoder_layers, config.decoder_heads, config.head_dim

        def pool(capacity: int) -> Tensor:
            length = round_up(capacity, LENGTH_STEP)
            return _zeros((layers, rows, heads, length, head_dim), dtype, device)

        self.row_keys, self.row_values = pool(max_target), pool(max_target)
        self.source_keys, self.source_values = pool(max_source), pool(max_source)
        self.source_lengths = torch.ones(rows, dtype=torch.long, device=device)
        self.row_sources = torch.zeros(rows, dtype=torch.long, device=device)
        self._sources = SourceTable(rows)

    def holds(self, key: Hashable) -> bool:
        """Whether the source `key` is already here, so that a new row may share it."""
        return key in self._sources

    def add_source(self, key: Hashable, keys_values: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Write one source's keys and values, [heads, length, head_dim] for each layer.

        It stays until a row has been bound to it and the last such row is released.
        """
        (index,) = self._sources.next_indices(1)
        length = keys_values[0][0].shape[1]
        for layer, (keys, values) in enumerate(keys_values):
            self.source_keys[layer, index, :, :length] = keys
            self.source_values[layer, index, :, :length] = values
        self.source_lengths[index] = length
        is_finite = all(bool(t.isfinite().all()) for pair in keys_values for t in pair)
        self._sources.add(key, is_clean=is_finite)

    def bind(self, row: int, key: Hashable) -> None:
        """Let a free row read the source `key`."""
        self.row_sources[row] = self._sources.bind(row, key)

    def reorder(self, rows: Tensor, parents: Tensor, length: int) -> None:
        """Give each of `rows` the first `length` positions of its parent, both [rows]."""
        pools = (self.row_keys, self.row_values)
        # Both are copied before one is written: memory may run out.
        copies = [pool[:, parents, :, :length] for pool in pools]
        for pool, copy in zip(pools, copies, strict=True):
            pool[:, rows, :, :length] = copy

    def release(self, row: int, *, is_clean: bool = True) -> None:
        """Free a row, and its source with its last row; zeros replace what is not clean."""
        if not is_clean:
            self.row_keys[:, row] = self.row_values[:, row] = 0
        if dropped := self._sources.release(row, is_clean=is_clean):
            self._clean(dropped)

    def drop_unread(self) -> None:
        """Free every source that no row is bound to."""
        for dropped in self._sources.drop_unread():
            self._clean(dropped)

    def _clean(self, source: Held) -> None:
        if not source.is_clean:
            self.source_keys[:, source.index] = self.source_values[:, source.index] = 0

    def step(self, rows: Tensor, positions: Tensor) -> "StepMemory":
        """Open the cache for one decode step of `rows` at `positions`, both [rows]."""
        return StepMemory(self, rows, positions)

    def __repr__(self) -> str:
        return f"<KVCache {self._sources!r}>"


class StepMemory:
    """The cache as one decode step sees it: a `Memory` of single positions."""

    def __init__(self, cache: KVCache, rows: Tensor, positions: Tensor) -> None:
        self._cache, self._rows, self._positions = cache, rows, positions
        dtype = cache.row_keys.dtype
        self._length = round_up(int(positions.max()) + 1, LENGTH_STEP)
        self._bias = readable_bias(positions + 1, self._length, dtype)
        sources = cache.row_sources[rows]
        source_lengths = cache.source_lengths[sources]
        self._source_length = round_up(int(source_lengths.max()), LENGTH_STEP)
        self._source_bias = readable_bias(source_lengths, self._source_length, dtype)
        self._span, self._source_span = _span(rows, dtype), _span(sources, dtype)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Write [rows or more, heads, 1, head_dim] at each row's position; returns all up to there.

        What comes after the rows is padding, and not written.
        """
        all_keys, all_values = self._cache.row_keys[layer], self._cache.row_values[layer]
        count = len(self._rows)
        all_keys[self._rows, :, self._positions] = keys[:count].squeeze(2)
        all_values[self._rows, :, self._positions] = values[:count].squeeze(2)
        return (
            _rows_of(all_keys[:, :, : self._length], self._span),
            _rows_of(all_values[:, :, : self._length], self._span),
            self._bias,
        )

    def source(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return each row's source keys and values and their bias."""
        keys, values = self._cache.source_keys[layer], self._cache.source_values[layer]
        return (
            _rows_of(keys[:, :, : self._source_length], self._source_span),
            _rows_of(values[:, :, : self._source_length], self._source_span),
            self._source_bias,
        )


def _span(index: Tensor, dtype: torch.dtype) -> slice | Tensor:
    """Return a slice where `index` counts up by one, so that reading it copies nothing.

    Only in float32: the half precisions multiply what is not contiguous by other kernels.
    """
    if dtype != torch.float32:
        return index
    listed = index.tolist()
    first, count = listed[0], len(listed)
    return slice(first, first + count) if listed == [*range(first, first + count)] else index


def _rows_of(pool: Tensor, rows: slice | Tensor) -> Tensor:
    return pool[rows] if isinstance(rows, slice) else pool.index_select(0, rows)
