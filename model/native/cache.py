"""NativeCache: keys and values of running rows in the compiled library, and the steps over them."""

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.latent_cache import Source
from model.native.library import Ask, Found, Run, check
from model.native.network import NativeNetwork

_ALL = -1  # sources


class SourceState(IntEnum):
    """Whether a source can be read; its values are those of `SourceState` in cache.h."""

    FAILED = -1
    BEGUN = 0
    READY = 1


@dataclass(frozen=True, slots=True)
class Findings:
    """What a step found, by row.

    Attributes:
        tokens: [rows, most], likeliest first; what there were too few of has the value -inf.
        values: [rows, most] log-probabilities; logits where the width asked for was 0.
        healthy: [rows] whether a row's logits were numbers and the best of them finite.
        logits: [rows whose logits were asked for, vocabulary], if any.
        attention: [layers, rows, heads, source], where asked for.
    """

    tokens: NDArray[np.int32]
    values: NDArray[np.float32]
    healthy: NDArray[np.bool_]
    logits: Tensor | None
    attention: Tensor | None


class NativeCache:
    """Keys and values of rows and of their sources, in half precision."""

    def __init__(self, network: NativeNetwork, rows: int, max_target: int) -> None:
        """Hold `rows` hypotheses of up to `max_target` tokens, and as many sources."""
        config = network.config
        if max_target > (most := max(config.max_positions, config.max_target)):
            raise ValueError(f"targets of {max_target} tokens; the network has {most} positions")
        self._network, self._library = network, network.library
        self._interruption = np.zeros(1, np.int32)
        self._handle = self._library.stele_cache(
            config.decoder_layers, rows, config.decoder_heads, config.head_dim, max_target
        )
        if not self._handle:
            raise MemoryError(f"there is no memory for {rows} rows of {max_target} tokens")
        self._lengths = [0] * rows  # of sources
        self._finalizer = weakref.finalize(self, _delete, network, self._handle)
        self._finalizer.atexit = False  # a thread may still be decoding when the interpreter ends

    def add_sources(self, indices: Sequence[int], latents: Sequence[Tensor]) -> None:
        """Project latents [length, width] to the keys and values of the sources at `indices`."""
        sources = np.array(indices, np.int32)
        lengths = np.array([len(latent) for latent in latents], np.int32)
        # NumPy's copy keeps to one thread: PyTorch's would spin where the library computes.
        joined = np.concatenate([latent.numpy() for latent in latents])
        check(
            self._library.stele_add_sources(
                self._network.handle,
                self._handle,
                len(sources),
                sources.ctypes.data,
                lengths.ctypes.data,
                joined.ctypes.data,
            )
        )

    def begin_sources(self, indices: Sequence[int], given: Sequence[Source]) -> None:
        """Encode the sources at `indices` beside the steps; `state` tells when they can be read."""
        sources = np.array(indices, np.int32)
        lengths = np.array([len(source) for source in given], np.int32)
        tokens = np.concatenate([np.asarray(source, np.int32) for source in given])
        for index, source in zip(indices, given, strict=True):
            self._lengths[index] = len(source)
        check(
            self._library.stele_begin_sources(
                self._network.handle,
                self._handle,
                len(sources),
                sources.ctypes.data,
                lengths.ctypes.data,
                tokens.ctypes.data,
            )
        )

    def state(self, index: int) -> SourceState:
        """Return whether a source that was begun or added can be read."""
        return SourceState(self._library.stele_source_state(self._handle, index))

    def take_latent(self, index: int) -> Tensor:
        """Return, once, the latent [length, width] of a source that was begun and is ready."""
        shape = self._lengths[index], self._network.config.width
        latent = np.empty(shape, np.float32)
        self._library.stele_take_latent(self._handle, index, latent.ctypes.data, latent.size)
        return torch.from_numpy(latent)

    def help(self, *, may_wait: bool) -> bool:
        """Encode in this thread some of what was begun; returns whether there was any.

        Args:
            may_wait: for long sources too, and where all is under way already, until some of it
                is done.
        """
        has_helped = ctypes.c_int32(0)
        check(self._library.stele_help(self._network.handle, may_wait, ctypes.byref(has_helped)))
        return bool(has_helped)

    def forget(self, index: int) -> None:
        """Give up a source that was begun; one that is being encoded is awaited."""
        check(self._library.stele_forget(self._network.handle, self._handle, index))

    def close_source(self, index: int) -> None:
        """Forget a source that no row reads."""
        self._library.stele_close_source(self._handle, index)

    def bind(self, row: int, source: int) -> None:
        """Begin an empty row that reads a source."""
        self._library.stele_bind(self._handle, row, source)

    def reorder(self, rows: Sequence[int], parents: Sequence[int], length: int) -> None:
        """Give each of `rows` the first `length` positions of its parent; nothing is copied."""
        to, origin = np.array(rows, np.int32), np.array(parents, np.int32)
        check(
            self._library.stele_reorder(
                self._handle, len(to), to.ctypes.data, origin.ctypes.data, length
            )
        )

    def step(
        self,
        rows: Sequence[int],
        tokens: Sequence[int],
        positions: Sequence[int],
        widths: Sequence[int],
        *,
        logits_of: Sequence[int] = (),
        attention_to: int = 0,
    ) -> Findings:
        """Decode one token in every row.

        Args:
            tokens, positions: what each row reads, and where that stands.
            widths: how many candidates each row wants; 0 is the likeliest token only, without its
                probability.
            logits_of: places in `rows` whose logits are wanted, in ascending order.
            attention_to: source tokens whose attention is wanted, at least the longest source.
        """
        config, count, most = self._network.config, len(rows), max(1, max(widths))
        asked = np.array([rows, tokens, positions, widths, [-1] * count], np.int32)
        asked[4, list(logits_of)] = range(len(logits_of))
        found = np.empty((count, most), np.int32), np.empty((count, most), np.float32)
        healthy = np.empty(count, np.bool_)
        logits = torch.empty(len(logits_of), config.vocabulary) if logits_of else None
        shape = config.decoder_layers, count, config.decoder_heads, attention_to
        attention = torch.zeros(shape) if attention_to else None
        address, row = asked.ctypes.data, asked.strides[0]
        ask = Ask(count, *(address + index * row for index in range(len(asked))), most)
        into = Found(
            found[0].ctypes.data,
            found[1].ctypes.data,
            healthy.ctypes.data,
            None if logits is None else logits.data_ptr(),
            None if attention is None else attention.data_ptr(),
            attention_to,
        )
        asking, finding = ctypes.byref(ask), ctypes.byref(into)
        check(self._library.stele_decode(self._network.handle, self._handle, asking, finding))
        return Findings(*found, healthy, logits, attention)

    def run(
        self,
        rows: Sequence[int],
        tokens: Sequence[int],
        positions: Sequence[int],
        rooms: Sequence[int],
        end: int,
    ) -> tuple[list[list[int]], list[bool]]:
        """Decode several tokens in every row, each the likeliest one.

        Args:
            tokens, positions: as in `step`.
            rooms: how many each row may gain, at least 1; it gains no more after `end`, after a
                step in which it was not healthy, nor after an interruption.

        Returns:
            What each row gained, and whether it was healthy.
        """
        count, steps = len(rows), max(rooms)
        asked = np.array([rows, tokens, positions, rooms], np.int32)
        gained, counts = np.empty((count, steps), np.int32), np.empty(count, np.int32)
        healthy = np.empty(count, np.bool_)
        address, row = asked.ctypes.data, asked.strides[0]
        run = Run(
            count,
            address,
            address + row,
            address + 2 * row,
            address + 3 * row,
            steps,
            end,
            self._interruption.ctypes.data,
            gained.ctypes.data,
            counts.ctypes.data,
            healthy.ctypes.data,
        )
        check(self._library.stele_run(self._network.handle, self._handle, ctypes.byref(run)))
        lines = zip(gained.tolist(), counts.tolist(), strict=True)
        return [line[:length] for line, length in lines], healthy.tolist()

    def interrupt(self) -> None:
        """Let the run under way, or else the next one, end after a step."""
        self._interruption[0] = 1


def _delete(network: NativeNetwork, handle: int) -> None:
    """Delete a cache once nothing is written to it any more."""
    network.library.stele_forget(network.handle, handle, _ALL)
    network.library.stele_cache_delete(handle)
