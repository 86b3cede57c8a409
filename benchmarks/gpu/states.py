"""Random slots, rows and caches for one operation: all lengths that matter, and poison."""

from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from model.captured.operations import Outbox, Slots

T = TypeVar("T", Slots, Outbox)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a state is.

    Attributes:
        positions: of the rows; there is one row more, which pads, and twice as many slots.
        inactive: which row is not active.
    """

    positions: tuple[int, ...]
    capacity: int
    heads: int = 2
    head_dim: int = 64
    inactive: int = 1

    @property
    def slots(self) -> int:
        """Slots, the dummy left out."""
        return 2 * len(self.positions)


def sizes(capacity: int) -> Sizes:
    """Return the lengths at which kernels fail if they do: about 0, a block, and the capacity."""
    known = (0, 2, 1, 15, 16, 17, capacity // 2, capacity - 1)
    return Sizes(known, capacity)


def integers(values: list[int], device: torch.device) -> Tensor:
    """Return int32 on the device."""
    return torch.tensor(values, dtype=torch.int32, device=device)


def row_slots(size: Sizes, device: torch.device, seed: int = 2) -> Tensor:
    """Return which slot each row has, in a drawn order; the last row pads."""
    chance = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(size.slots, generator=chance)[: len(size.positions)]
    return integers([*drawn.tolist(), size.slots], device)


def slots(size: Sizes, row_slot: Tensor, vocabulary: int, end: int, seed: int = 3) -> Slots:
    """Return slots whose rows stand where `size` says; the others hold anything."""
    chance = torch.Generator().manual_seed(seed)
    count, capacity, device = size.slots + 1, size.capacity, row_slot.device

    def drawn(*shape: int, below: int) -> Tensor:
        return torch.randint(0, below, shape, generator=chance, dtype=torch.int32)

    position = drawn(count, below=capacity)
    active = torch.zeros(count, dtype=torch.int32)
    rows = row_slot[:-1].long().cpu()
    position[rows] = torch.tensor(size.positions, dtype=torch.int32)
    active[rows] = 1
    active[rows[size.inactive]] = 0
    minimum = drawn(count, below=3) * (position + 1).clamp(max=20)
    limit = (position + 1 + drawn(count, below=2)).clamp(max=capacity)
    forced = torch.where(drawn(count, 4, below=3) == 0, end, -1).int()
    own = torch.arange(count, dtype=torch.int32)[:, None].expand(-1, capacity).contiguous()
    first, second = rows[4], rows[5]  # two rows with the same past
    own[second, : int(position[first])] = first.int()  # nobody reads what a row writes now
    history = drawn(count, capacity + 1, below=vocabulary)
    found = Slots(
        drawn(count, below=vocabulary), position, active, minimum, limit, history, own, forced
    )
    return moved(found, device)


def outbox(entries: int, rows: int, device: torch.device) -> Outbox:
    """Return one whose next entry is its last."""
    cells = torch.full((entries, 2, rows), -1, dtype=torch.int32, device=device)
    return Outbox(integers([entries - 1], device), cells)


def moved(held: T, device: torch.device) -> T:
    """Return a copy of every tensor on the device."""
    copies = {f.name: getattr(held, f.name).to(device, copy=True) for f in fields(held)}
    return type(held)(**copies)


def are_equal(one: T, other: T) -> bool:
    """Whether all tensors are."""
    return all(torch.equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))


def poisoned_cache(
    size: Sizes, row_slot: Tensor, held: Slots, dtype: torch.dtype, seed: int
) -> Tensor:
    """Return [slots + 1, heads, capacity, head_dim]: NaN in every cell that no row may read."""
    chance = torch.Generator().manual_seed(seed)
    shape = (size.slots + 1, size.heads, size.capacity, size.head_dim)
    cache = torch.randn(shape, generator=chance).to(dtype)
    readable = torch.zeros(shape[0], size.capacity, dtype=torch.bool)
    ancestors, position = held.ancestors.cpu(), held.position.cpu()
    for slot in row_slot[:-1].tolist():
        if held.is_active[slot]:
            for place in range(int(position[slot])):
                readable[ancestors[slot, place], place] = True
    cache[~readable[:, None].expand(-1, size.heads, -1)] = float("nan")
    return cache.to(row_slot.device)
