"""What the steps of one run left for the host: tokens of each row, and how searches went on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.captured.operations import HAS_ENDED, IS_FINITE, WAS_ACTIVE
from model.decoding.search import Candidates
from model.decoding.target import Target
from model.machine import Gain

Cells = NDArray[np.int32]  # as `Outbox.cells` of one entry
Found = NDArray[np.int32]  # as `Memory.candidates` of one entry


class _Followed:
    """One search, advanced by what the device found; `search` counts, not what it chose."""

    def __init__(self, target: Target, place: int, decoded: int) -> None:
        assert target.search is not None
        self._span = slice(place, place + len(target.rows))
        self._prefix, self._decoded = target.prefix, decoded
        self.search = target.search
        self.steps, self.is_healthy, self.is_over = 0, True, False

    def take(self, flags: NDArray[np.int32], found: Found) -> None:
        if self.is_over:  # what it did meanwhile does not count
            return
        own = flags[self._span]
        self.is_healthy = bool((own & IS_FINITE).all())
        self.is_over = not self.is_healthy or bool((own & HAS_ENDED).any())
        if not self.is_healthy:
            return
        if self._decoded + self.steps >= self._prefix:
            self.search = self.search.advance(self._candidates(found))
            self.is_over |= bool(self.search.hypotheses)
        self.steps += 1

    def _candidates(self, found: Found) -> list[Candidates]:
        width = self.search.width
        tokens, bits = found[:, self._span, :width]
        log_probs = bits.view(np.float32)
        return [Candidates(*pair) for pair in zip(tokens.tolist(), log_probs.tolist(), strict=True)]


class Results:
    """Collects what steps left for each target of a run, and knows whether any goes on."""

    def __init__(self, targets: Sequence[Target], decoded: Sequence[int]) -> None:
        """Begin with how many tokens each target has."""
        self._cells: list[Cells] = []
        self._places: list[int] = []
        self._followed: dict[int, _Followed] = {}  # by target
        place = 0
        for index, target in enumerate(targets):
            self._places.append(place)
            if target.search is not None:
                self._followed[index] = _Followed(target, place, decoded[index])
            place += len(target.rows)
        singles = [p for i, p in enumerate(self._places) if i not in self._followed]
        self._singles = np.array(singles, dtype=np.intp)

    def take(self, cells: Cells, found: Found | None) -> bool:
        """Take in one step; returns whether any target goes on.

        Args:
            cells, found: whose memory is used again; `found` where there are searches.
        """
        self._cells.append(cells.copy())
        flags = cells[1]
        if found is not None:
            for followed in self._followed.values():
                followed.take(flags, found)
        ends = flags[self._singles] & (WAS_ACTIVE | HAS_ENDED)
        return bool((ends == WAS_ACTIVE).any()) or not all(
            followed.is_over for followed in self._followed.values()
        )

    def gains(self) -> list[Gain]:
        """Return what each target gained."""
        cells = np.stack(self._cells)  # [steps, 2, rows]
        tokens, flags = cells[:, 0, self._singles].T, cells[:, 1, self._singles].T
        was_active = (flags & WAS_ACTIVE) != 0
        counts = was_active.sum(1).tolist()
        healthy = ((flags & IS_FINITE != 0) | ~was_active).all(1).tolist()
        lines = iter(zip(tokens.tolist(), counts, healthy, strict=True))
        return [
            _of_search(self._followed[index])
            if index in self._followed
            else _of_tokens(*next(lines))
            for index in range(len(self._places))
        ]


def _of_tokens(tokens: list[int], count: int, is_healthy: bool) -> Gain:
    return Gain(tuple(tokens[:count]), is_healthy) if is_healthy else Gain((), is_healthy)


def _of_search(followed: _Followed) -> Gain:
    return Gain((), followed.is_healthy, followed.search, followed.steps)
