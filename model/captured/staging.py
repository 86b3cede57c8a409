"""Staging: what the host says of the rows of a step, in one copy."""

from collections.abc import Sequence

import numpy as np
import torch

from model.captured.device import Device, on_device
from model.captured.memory import RECORD, Memory
from model.decoding.options import DecodingOptions
from model.decoding.rows import forced_tokens
from model.decoding.search import Search

_NO_TOKEN = -1
_IMPOSSIBLE = float("-inf")


class Staging:
    """Keeps what each slot was admitted with, and tells the device of rows before they run.

    Nothing on the device is read back for it: the host says all of a row that the next steps read
    but its keys and values. So a row joins, leaves, or begins again where it was by what is said.
    """

    def __init__(self, memory: Memory, device: Device, slots: int) -> None:
        self._memory, self._device, self._dummy = memory, device, slots
        self._slots = np.zeros(slots + 1, RECORD)
        self._slots["slot"] = np.arange(slots + 1)
        self._slots["max_position"] = 1
        words = memory.staged.shape
        self._packed = device.pinned(*words, dtype=torch.int64)
        self._records = self._packed.numpy().view(RECORD)[:, 0]
        self._groups = device.pinned(*memory.groups.shape, dtype=torch.int32)
        self._forced: dict[int, list[int]] = {}  # positions that hold one, by slot
        self._changed: dict[tuple[int, int], int] = {}  # forced tokens to write
        self._free = device.mark()  # once it is reached, pinned memory may be written again

    def bind(self, slot: int, options: DecodingOptions, source: int) -> None:
        """Say what a slot is to hold from its first step on; what it held before is forgotten."""
        record, prefix = self._slots[slot], options.target_prefix
        record["prefix"] = len(prefix)
        record["minimum"] = len(prefix) + options.min_new_tokens
        record["source"] = source
        record["seed"] = options.seed
        record["temperature"], record["top_p"] = options.temperature, options.top_p
        record["top_k"] = options.top_k
        record["renormalises"] = options.renormalises
        record["is_active"] = 1
        forced = forced_tokens(options) | dict(enumerate(prefix))
        for position in self._forced.pop(slot, ()):
            self._changed[slot, position] = _NO_TOKEN
        for position, token in forced.items():
            self._changed[slot, position] = token
        if forced:
            self._forced[slot] = [*forced]

    def rows(
        self,
        slots: Sequence[int],
        tokens: Sequence[int],
        positions: Sequence[int],
        limits: Sequence[int],
        bucket: int,
    ) -> None:
        """Say which slots the first rows of a step hold, and where each is; others are padding.

        Args:
            tokens, positions: what each reads next, and where that stands.
            limits: how many tokens each may have after it has run.
        """
        self._free.synchronize()
        self._write_forced()
        records, count = self._records, len(slots)
        records[:count] = self._slots[[*slots]]
        records["token"][:count] = tokens
        records["position"][:count] = positions
        records["max_position"][:count] = limits
        records[count:bucket] = self._slots[self._dummy]

    def searches(self, spans: Sequence[tuple[int, Search]], bucket: int) -> None:
        """Say which rows search together: those from a row on, in the order of its hypotheses."""
        groups = self._groups.numpy()
        groups[:] = bucket
        groups[:, -1] = 0
        for line, (first, search) in enumerate(spans):
            live, beams = search.live, search.width // 2
            groups[line, :beams] = range(first, first + beams)
            groups[line, -1] = beams
            scores = self._records["score"][first : first + beams]
            scores[: len(live)] = [hypothesis.score for hypothesis in live]
            scores[len(live) :] = _IMPOSSIBLE
        self._device.upload(self._groups, self._memory.groups)

    def send(self, bucket: int) -> None:
        """Give the device what was said of the rows of a step."""
        self._device.upload(self._packed[:bucket], self._memory.staged[:bucket])
        self._free = self._device.mark()

    def _write_forced(self) -> None:
        if not self._changed:
            return
        lines = [[slot, position, token] for (slot, position), token in self._changed.items()]
        slot, position, token = on_device(lines, torch.int64, self._device.device).unbind(1)
        self._memory.slots.forced.index_put_((slot, position), token.int())
        self._changed.clear()
