"""The compiled machine: int8 on CPUs, one call a step, the choice of tokens included."""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.decoding.picks import Picks
from model.decoding.rows import RowTable
from model.decoding.search import Alignment, Candidates
from model.decoding.step import Chooser
from model.decoding.target import LOGITS, Target
from model.latent_cache import Source
from model.machine import Gain, alignments, greedy_room, wants_attention
from model.native.cache import Findings, NativeCache, SourceState
from model.native.network import NativeNetwork
from model.sources import SourceTable

ROW_STEP = 8  # PyTorch's operators give a row of logits the same bits at every multiple of it


class NativeMachine:
    """A `Machine` of a `NativeNetwork` and a `NativeCache`.

    What is read is what was written, so that nothing needs to be cleaned.
    """

    def __init__(
        self, network: NativeNetwork, rows: int, max_target: int, table: RowTable, chooser: Chooser
    ) -> None:
        """Allocate the cache of `rows`, each of up to `max_target` tokens."""
        self._network, self._table, self._chooser = network, table, chooser
        self._cache = NativeCache(network, rows, max_target)
        self._sources = SourceTable(rows)

    def encode(self, sources: Sequence[Source]) -> list[Tensor]:
        """As `Machine` says."""
        return self._network.encode(sources)

    def holds(self, source: Source) -> bool:
        """As `Machine` says."""
        return source in self._sources

    def add_sources(self, sources: Sequence[Source], latents: Sequence[Tensor]) -> None:
        """As `Machine` says."""
        if not sources:
            return
        self._cache.add_sources(self._sources.next_indices(len(sources)), latents)
        for source in sources:
            self._sources.add(source)

    def begin_sources(self, sources: Sequence[Source]) -> None:
        """Take in sources, and encode them beside the steps; `state` tells when they are ready.

        No row that reads one may be stepped before.
        """
        if not sources:
            return
        self._cache.begin_sources(self._sources.next_indices(len(sources)), sources)
        for source in sources:
            self._sources.add(source)

    def state(self, source: Source) -> SourceState:
        """Return whether a source that is held can be read."""
        return self._cache.state(self._sources.index(source))

    def take_latent(self, source: Source) -> Tensor:
        """Return, once, the latent [length, width] of a source that was begun and is ready."""
        return self._cache.take_latent(self._sources.index(source))

    def help(self, *, may_wait: bool) -> bool:
        """Encode in this thread some of what was begun.

        Args:
            may_wait: for long sources too, and where all is under way already, until some of it
                is done.

        Returns:
            Whether anything was encoded here.
        """
        return self._cache.help(may_wait=may_wait)

    def drop_unread(self) -> None:
        """As `Machine` says."""
        for dropped in self._sources.drop_unread():
            self._close(dropped.index)

    def _close(self, index: int) -> None:
        if self._cache.state(index) is SourceState.BEGUN:
            self._cache.forget(index)
        self._cache.close_source(index)

    def bind(self, row: int, source: Source) -> None:
        """As `Machine` says."""
        self._cache.bind(row, self._sources.bind(row, source))

    def release(self, row: int, *, is_clean: bool) -> None:
        """As `Machine` says."""
        if dropped := self._sources.release(row):
            self._close(dropped.index)

    def reorder(self, rows: Sequence[int], parents: Sequence[int], length: int) -> None:
        """As `Machine` says."""
        self._cache.reorder(rows, parents, length)

    def step(self, targets: Sequence[Target]) -> Picks:
        """As `Machine` says."""
        rows = [row for target in targets for row in target.rows]
        widths = self._chooser.demand(targets)
        places = [place for place, width in enumerate(widths) if width == LOGITS]
        longest = max(target.source_length for target in targets)
        decoded, newest = self._table.decoded, self._table.newest
        findings = self._cache.step(
            rows,
            [newest[row] for row in rows],
            [decoded[row] for row in rows],
            [max(width, 0) for width in widths],
            logits_of=places,
            attention_to=longest if wants_attention(targets) else 0,
        )
        weights = findings.attention
        aligned = {} if weights is None else alignments(weights, targets)
        picks = _picked(findings, widths, aligned)
        if findings.logits is not None:
            self._read(findings.logits, targets, places, picks)
        return picks

    def _read(
        self, logits: Tensor, targets: Sequence[Target], places: Sequence[int], picks: Picks
    ) -> None:
        """Let the filters and draws of PyTorch choose for the rows that need all their logits."""
        asking, place = [], 0
        for target in targets:
            if place in places:
                asking.append(target)
            place += len(target.rows)
        padding = logits[:1].expand(-len(places) % ROW_STEP, -1)
        selected = torch.cat([logits, padding])
        aligned = {i: picks.alignments[p] for i, p in enumerate(places) if p in picks.alignments}
        read = self._chooser.read(selected, asking, aligned)
        for index, place in enumerate(places):
            picks.tokens[place], picks.healthy[place] = read.tokens[index], read.healthy[index]
            if index in read.candidates:
                picks.candidates[place] = read.candidates[index]

    @property
    def least_steps(self) -> int:
        """As `Machine` says."""
        return 2

    def room(self, target: Target, decoded: int) -> int:
        """As `Machine` says: for targets of one row that take the likeliest tokens."""
        return greedy_room(target, decoded)

    def run(self, targets: Sequence[Target], rooms: Sequence[int]) -> list[Gain]:
        """As `Machine` says."""
        rows = [target.rows[0] for target in targets]
        tokens = [self._table.newest[row] for row in rows]
        positions = [self._table.decoded[row] for row in rows]
        gained, healthy = self._cache.run(rows, tokens, positions, rooms, self._network.config.eos)
        return [Gain(tuple(line), is_good) for line, is_good in zip(gained, healthy, strict=True)]

    def interrupt(self) -> None:
        """As `Machine` says."""
        self._cache.interrupt()

    def __repr__(self) -> str:
        return f"<NativeMachine {self._sources!r}>"


def _picked(findings: Findings, widths: Sequence[int], aligned: dict[int, Alignment]) -> Picks:
    tokens, values = findings.tokens.tolist(), findings.values.tolist()
    candidates = {
        place: Candidates(tokens[place][:width], values[place][:width])
        for place, width in enumerate(widths)
        if width > 0
    }
    return Picks(findings.tokens[:, 0].tolist(), findings.healthy.tolist(), candidates, aligned)
