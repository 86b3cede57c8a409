"""Newcomers: targets whose sources are encoded beside the steps, and cannot be stepped yet."""

from collections.abc import Sequence

from model.decoding.step import Step
from model.latent_cache import LatentCache, Source
from model.native.cache import SourceState
from model.native.machine import NativeMachine

_LONG = 128  # tokens of a source: what the library encodes at once, if it does not have to be one


class Newcomers:
    """Says who cannot be stepped yet, and keeps the latents of what was encoded beside."""

    def __init__(self, machine: NativeMachine | None, latents: LatentCache) -> None:
        """Begin with nobody; without a machine that encodes beside, it stays so."""
        self._machine, self._latents = machine, latents
        self._sources: dict[Source, None] = {}  # being encoded
        self._awaited: dict[int, Source] = {}  # by name of the target
        self._failed: set[int] = set()  # whose sources could not be encoded

    @property
    def tokens(self) -> int:
        """Return how many are being encoded."""
        return sum(map(len, self._sources))

    def chosen(self, sources: Sequence[Source], targets: int) -> list[Source]:
        """Return which of `sources` are to be encoded beside: none where nothing can be stepped.

        Args:
            targets: how many hold rows.
        """
        if self._machine is None or targets <= len(self._awaited) + len(self._failed):
            return []
        return [source for source in sources if source not in self._latents]

    def begin(self, sources: Sequence[Source]) -> None:
        """Encode distinct sources, which the machine does not hold, beside the steps."""
        if self._machine is not None and sources:
            self._machine.begin_sources(sources)
            self._sources |= dict.fromkeys(sources)
            self._latents.misses += len(sources)

    def add(self, name: int, source: Source) -> None:
        """Let a target wait for its source, where that is being encoded."""
        if source in self._sources:
            self._awaited[name] = source
        elif self._machine is not None and self._machine.state(source) is SourceState.FAILED:
            self._failed.add(name)  # an earlier reader holds it still

    def held_back(self, names: Sequence[int]) -> dict[int, Step]:
        """Return what those gain who cannot be stepped: nothing so far, or their failure.

        Where more are awaited than can be stepped, or a long source keeps others waiting, sources
        are encoded in this thread too; where nobody can be stepped, until somebody can, or failed.
        """
        if self._machine is None or not (self._awaited or self._failed):
            return {}
        awaited = self._still_awaited(names, self._machine)
        while awaited and (2 * len(awaited) > len(names) or self._is_held_up):
            is_idle = len(awaited) == len(names)
            if not self._machine.help(may_wait=is_idle) and not is_idle:
                break  # all is under way
            awaited = self._still_awaited(names, self._machine)
        gained = dict.fromkeys(awaited, Step(is_awaited=True))
        return gained | {name: Step(is_healthy=False) for name in names if name in self._failed}

    @property
    def _is_held_up(self) -> bool:
        """Whether others may wait for a source that takes long."""
        return len(self._sources) > 1 and max(map(len, self._sources)) > _LONG

    def _still_awaited(self, names: Sequence[int], machine: NativeMachine) -> list[int]:
        """Find out what has been encoded since, and return who is awaited all the same."""
        for source in list(self._sources):
            state = machine.state(source)
            if state is SourceState.BEGUN:
                continue
            readers = [name for name, own in self._awaited.items() if own == source]
            for name in readers:
                del self._awaited[name]
            del self._sources[source]
            if state is SourceState.READY:
                self._latents.keep(source, machine.take_latent(source))
            else:
                self._failed.update(readers)
        return [name for name in names if name in self._awaited]

    def leave(self, name: int) -> None:
        """Forget a target, wherever it stands."""
        self._failed.discard(name)
        source = self._awaited.pop(name, None)
        if source is not None and source not in self._awaited.values():
            del self._sources[source]

    def __repr__(self) -> str:
        return f"<Newcomers {len(self._awaited)} awaited, {len(self._sources)} sources>"
