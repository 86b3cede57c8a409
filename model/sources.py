"""SourceTable: which sources are held, at which index, and which rows read them."""

import heapq
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(slots=True)
class Held:
    """A source that is held.

    Attributes:
        rows: how many read it.
        is_clean: whether all that its place holds is finite.
    """

    key: Hashable
    index: int
    rows: int = 0
    is_clean: bool = True


class SourceTable:
    """Gives each distinct source a place, which it keeps until the last row that reads it is freed.

    Pure bookkeeping, the same for every machine; who holds what is read is told what was freed.
    """

    def __init__(self, capacity: int) -> None:
        """Hold up to `capacity` sources."""
        self._capacity = capacity
        self._free = list(range(capacity))  # a heap: what arrives together lies together
        self._held: dict[Hashable, Held] = {}
        self._key_of: dict[int, Hashable] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether the source `key` is held, so that a new row may share it."""
        return key in self._held

    def index(self, key: Hashable) -> int:
        """Return the place of a source that is held."""
        return self._held[key].index

    def read_by(self, row: int) -> Hashable:
        """Return the source that a row reads."""
        return self._key_of[row]

    def next_indices(self, count: int) -> list[int]:
        """Return the places that the next `count` sources will be added at."""
        return heapq.nsmallest(count, self._free)

    def add(self, key: Hashable, *, is_clean: bool = True) -> None:
        """Hold a source at the first free place, until its last row is released, or `drop_unread`.

        Raises:
            IndexError: there is no free place.
        """
        self._held[key] = Held(key, heapq.heappop(self._free), is_clean=is_clean)

    def bind(self, row: int, key: Hashable) -> int:
        """Let a free row read the source `key`; returns its place."""
        held = self._held[key]
        held.rows += 1
        self._key_of[row] = key
        return held.index

    def release(self, row: int, *, is_clean: bool = True) -> Held | None:
        """Free a row; returns its source if that is held no longer."""
        key = self._key_of.pop(row)
        held = self._held[key]
        held.rows -= 1
        held.is_clean &= is_clean
        return None if held.rows else self._drop(key)

    def drop_unread(self) -> list[Held]:
        """Free every source that no row reads; returns them."""
        unread = [key for key, held in self._held.items() if not held.rows]
        return [self._drop(key) for key in unread]

    def _drop(self, key: Hashable) -> Held:
        held = self._held.pop(key)
        heapq.heappush(self._free, held.index)
        return held

    def __repr__(self) -> str:
        rows, sources, capacity = len(self._key_of), len(self._held), self._capacity
        return f"{rows}/{capacity} rows, {sources}/{capacity} sources"
