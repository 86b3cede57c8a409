"""A model's captured steps over rows set to any position: what a step costs without a host."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu import shapes
from benchmarks.gpu.context import Context
from benchmarks.gpu.lazily import Lazily
from benchmarks.gpu.machines import device_of, operations
from benchmarks.gpu.timing import block_s
from model.captured.memory import Memory
from model.captured.steps import Steps, Variant
from model.captured.weights import gather
from model.transformer import EncoderDecoder

_ENTRIES, _BEAMS = 4, 4
_WINDOW = 24


@dataclass(frozen=True, slots=True)
class Load:
    """What the rows of a step hold: sources of `lengths`, in turn, and `target` tokens so far."""

    lengths: Sequence[int]
    target: int

    def positions(self, rows: int) -> int:
        """Return what `rows` read together."""
        return sum(self.source(row) for row in range(rows)) + rows * self.target

    def source(self, row: int) -> int:
        """Return the length of a row's source."""
        return self.lengths[row % len(self.lengths)]


class Decoder:
    """One model's weights, memory and steps.

    Attributes:
        network: its own, for what the steps leave out.
        window: steps that are timed together, about the target's length.
    """

    def __init__(
        self,
        context: Context,
        model: str,
        buckets: Sequence[int],
        load: Load,
        window: int = _WINDOW,
    ) -> None:
        """Allocate for rows of `load` in the largest bucket.

        Args:
            window: of steps, at most twice the target's length.
        """
        self._where, described = context.device, context.config(model)
        dtype = shapes.precision(described)
        self.network: EncoderDecoder = shapes.network(described, context.device, dtype)
        self._device, self._load = Lazily(device_of(context)), load  # which awaits the network
        self.window = min(window, 2 * load.target)
        capacity = load.target + self.window // 2 + 1
        self._slots = max(buckets)
        with self._device.decoding():
            weights = gather(self.network, capacity)
            self._memory = Memory(
                weights,
                self._slots,
                self._slots,
                max(load.lengths),
                capacity,
                _ENTRIES,
                _BEAMS,
                context.device,
            )
            nothing = torch.empty(0, dtype=torch.long, device=context.device)
            chosen = operations(context)
            self._steps = Steps(weights, self._memory, chosen, self._device, buckets, nothing)

    def capture(self, bucket: int, variant: Variant = "greedy") -> None:
        """Capture a step; rows hold nothing then."""
        with self._device.decoding():
            self._memory.row_slot.fill_(self._slots)
            self._memory.slots.is_active.zero_()
            self._steps.replay(bucket, variant)

    def step_s(self, rows: int, bucket: int, variant: Variant = "greedy") -> float:
        """Return the seconds of a step, the mean over a window about the target's length."""
        with self._device.decoding():
            self.begin(rows)
            if variant in ("beams", "mixed"):
                self._search(rows)
            return block_s(self.replay(bucket, variant), self._where, self.window)

    def uncaptured_s(self, rows: int, bucket: int) -> float:
        """Return the seconds of a step whose kernels the host launches one by one."""
        with self._device.decoding():
            self.begin(rows)
            run = self._steps.run
            return block_s(lambda: run(bucket, "greedy"), self._where, self.window)

    def replays_as_it_runs(self, rows: int, steps: int) -> bool:
        """Whether so many replayed steps leave the same bits as the same steps run eagerly."""
        with self._device.decoding():
            self.begin(rows)
            before = self._bits()
            replay = self.replay(rows)
            for _ in range(steps):
                replay()
            replayed = self._bits()
            self._restore(before)
            for _ in range(steps):
                self._steps.run(rows, "greedy")
            found = self._bits()
            return all(map(torch.equal, replayed, found)) and not all(
                map(torch.equal, before, found)
            )

    def _bits(self) -> list[Tensor]:
        return [tensor.clone() for tensor in self._written()]

    def _restore(self, bits: list[Tensor]) -> None:
        for tensor, earlier in zip(self._written(), bits, strict=True):
            tensor.copy_(earlier)

    def _written(self) -> list[Tensor]:
        """Return all that a greedy step writes."""
        memory, slots = self._memory, self._memory.slots
        box = memory.outbox
        found = [memory.keys, memory.values, memory.numbers, slots.history, slots.ancestors]
        return [*found, box.entry, box.cells]

    def replay(self, bucket: int, variant: Variant = "greedy") -> Callable[[], None]:
        """Return what replays a step; it wants `begin` before, and `decoding` around it."""
        return lambda: self._steps.replay(bucket, variant)

    def decoding(self) -> AbstractContextManager[None]:
        """Give what follows to the queue that decodes."""
        return self._device.decoding()

    def _search(self, rows: int) -> None:
        """Let rows search together, as many as the beams of one search."""
        memory = self._memory
        count = rows // _BEAMS
        together = torch.arange(count * _BEAMS, dtype=torch.int32).view(count, _BEAMS)
        memory.groups[:count, :_BEAMS] = together.to(self._where)
        memory.groups[:count, -1] = _BEAMS
        memory.score.zero_()

    def begin(self, rows: int) -> None:
        """Let `rows` rows run, in slots that are not in their order, half a window early."""
        memory, slots = self._memory, self._memory.slots
        count, device = self._slots + 1, self._where
        order = torch.randperm(self._slots, generator=torch.Generator().manual_seed(1))[:rows]
        memory.row_slot.fill_(self._slots)
        memory.row_slot[:rows] = order.int().to(device)
        each = torch.arange(count, dtype=torch.int32, device=device)
        memory.source_of_slot.copy_(each)
        lengths = [self._load.source(slot) for slot in range(self._slots)]
        memory.source_length.copy_(torch.tensor([*lengths, 0], dtype=torch.int32))
        slots.ancestors.copy_(each[:, None].expand_as(slots.ancestors))
        slots.position.fill_(self._load.target - self.window // 2)
        slots.minimum.fill_(slots.ancestors.shape[1])  # nothing ends
        slots.max_position.fill_(slots.ancestors.shape[1])
        slots.is_active.fill_(1)
        slots.is_active[-1] = 0
        memory.groups.fill_(self._slots)  # no row searches
        memory.groups[:, -1] = 0
        for cells in (memory.keys, memory.values, memory.source_keys, memory.source_values):
            cells.normal_()
