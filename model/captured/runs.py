"""What the steps of one run left for the host: tokens of each row, and how searches went on."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from model.captured.device import Device, Mark
from model.captured.memory import Memory
from model.captured.operations import HAS_ENDED, IS_FINITE, WAS_ACTIVE
from model.decoding.search import Candidates
from model.decoding.target import Target
from model.machine import Gain

Cells = NDArray[np.int32]  # as `Outbox.cells` of one entry
Found = NDArray[np.int32]  # as `Memory.candidates` of one entry


class Sent:
    """What one step left, on its way to the host."""

    def __init__(self, mark: Mark, cells: Cells, found: Found | None) -> None:
        self._mark, self._cells, self._found = mark, cells, found

    def read(self) -> tuple[Cells, Found | None]:
        """Wait for it; its memory is used again after some steps."""
        self._mark.synchronize()
        return self._cells, self._found


class Outgoing:
    """The outbox on the host, as many entries as on the device."""

    def __init__(self, memory: Memory, device: Device, entries: int) -> None:
        self._device, self._entries, self._entry = device, entries, 0
        self._cells, self._found = memory.outbox.cells, memory.candidates
        self._pinned = device.pinned(*self._cells.shape, dtype=torch.int32)
        self._pinned_found = device.pinned(*self._found.shape, dtype=torch.int32)
        self._wants_candidates = False

    def begin(self, *, wants_candidates: bool) -> None:
        """Begin a run; its first step writes the first entry."""
        self._entry, self._wants_candidates = 0, wants_candidates

    def send(self) -> Sent:
        """Send what the step just launched will leave."""
        entry = self._entry
        self._entry = (entry + 1) % self._entries
        found = None
        if self._wants_candidates:
            self._device.download(self._found[entry], self._pinned_found[entry])
            found = self._pinned_found[entry].numpy()
        mark = self._device.download(self._cells[entry], self._pinned[entry])
        return Sent(mark, self._pinned[entry].numpy(), found)


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
