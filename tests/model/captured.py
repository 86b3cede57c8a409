"""What any implementation of a captured step's attention must do, checked against slow loops.

Each check takes operations and a device; what may not be read is poison there: NaN, or an index
that is outside of everything. `is_close` allows a result one rounding.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from model.captured.operations import Operations, Slots

SLOTS, CAPACITY, SOURCES = 12, 32, 9
DUMMY, LENGTHS = SLOTS, (0, 1, 15, 16, 17, CAPACITY - 1)
ROWS = [7, 2, 9, 0, 4, 11, 5, 3, 10, DUMMY, DUMMY, DUMMY]  # the slot of each row
BRANCHED, INACTIVE = {5: 8, 3: 5}, 10  # slots whose history is partly another's, and an idle one
AT = 20  # where the branched ones are
WILD = 1_000_000_007  # an index that may not be used
VOCABULARY, NAN = 50, math.nan


def ints(values: Sequence[object] | Tensor, device: torch.device) -> Tensor:
    return torch.as_tensor(values, dtype=torch.int32).to(device)


def is_close(found: Tensor, expected: Tensor) -> None:
    """Compare with a reference in float64, which `found` rounded at most about once."""
    rounding = torch.finfo(found.dtype).eps
    torch.testing.assert_close(found.double().cpu(), expected, rtol=rounding, atol=5e-6)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slots_at(positions: dict[int, int], device: torch.device) -> Slots:
    """Return slots of which those in `positions` are active; all else is poison."""
    state = {name: torch.full((SLOTS + 1,), WILD) for name in ("token", "position", "most")}
    is_active, minimum = torch.zeros(SLOTS + 1), torch.zeros(SLOTS + 1)
    ancestors = torch.full((SLOTS + 1, CAPACITY), WILD)
    for slot, position in positions.items():
        is_active[slot] = 1
        state["position"][slot] = position
        state["token"][slot] = (slot * 7) % VOCABULARY
        state["most"][slot] = CAPACITY
        ancestors[slot, :position] = slot
    return Slots(
        token=ints(state["token"], device),
        position=ints(state["position"], device),
        is_active=ints(is_active, device),
        minimum=ints(minimum, device),
        max_position=ints(state["most"], device),
        history=ints(torch.full((SLOTS + 1, CAPACITY + 1), WILD), device),
        ancestors=ints(ancestors, device),
        forced=ints(torch.full((SLOTS + 1, 4), -1), device),
    )


def running(device: torch.device) -> Slots:
    """Return slots at all lengths, in two of which histories branch."""
    positions = dict(zip(ROWS[:6], LENGTHS, strict=True)) | dict.fromkeys((8, *BRANCHED), AT)
    slots = slots_at(positions, device)
    for slot, parent in BRANCHED.items():
        until = 13 if slot == 5 else 6  # 3 follows 5, which follows 8
        slots.ancestors[slot, :until] = slots.ancestors[parent, :until]
    return slots


class Memory:
    """Keys and values of which only some cells may be read; all others are NaN."""

    def __init__(self, count: int, heads: int, head_dim: int, dtype: torch.dtype) -> None:
        shape = (count, heads, CAPACITY, head_dim)
        self.keys, self.values = (torch.full(shape, NAN, dtype=dtype) for _ in "kv")

    def fill(self, cells: Iterable[tuple[int, int]]) -> None:
        """Make cells readable: index and position of each."""
        for seed, pool in enumerate((self.keys, self.values)):
            for index, step in cells:
                pool[index, :, step] = noise(
                    *pool.shape[1::2], seed=1000 * seed + 40 * index + step
                )

    def mixed(
        self,
        query: Tensor,
        cells: Sequence[tuple[int, int]],
        scale: float,
        bias: Tensor | None = None,
        own: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend from [heads, head_dim] to cells, then to `own` key and value, in float64.

        Args:
            bias: [heads, any] by distance from the last.
        """
        result = torch.zeros(query.shape).double()
        for head in range(len(query)):
            keys, values = (
                [pool[index, head, step].double() for index, step in cells]
                + ([] if own is None else [own[place][head].double()])
                for place, pool in enumerate((self.keys, self.values))
            )
            scores = [float((query[head].double() * key).sum()) * scale for key in keys]
            if bias is not None:
                last = len(scores) - 1
                scores = [s + float(bias[head, last - t]) for t, s in enumerate(scores)]
            weights = [math.exp(score - max(scores)) for score in scores]
            for weight, value in zip(weights, values, strict=True):
                result[head] += weight / sum(weights) * value
        return result

    def on(self, device: torch.device) -> "Memory":
        copy = Memory(1, 1, 1, self.keys.dtype)
        copy.keys, copy.values = (pool.clone().to(device) for pool in (self.keys, self.values))
        return copy

    def is_equal(self, other: "Memory") -> bool:
        """Compare to the bit, NaN included."""
        kind = torch.int16 if self.keys.element_size() == 2 else torch.int32
        pairs = ((self.keys, other.keys), (self.values, other.values))
        return all(torch.equal(a.cpu().view(kind), b.cpu().view(kind)) for a, b in pairs)


def check_append_attend(
    operations: Operations,
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int = 16,
    is_biased: bool = False,
) -> None:
    heads, slots = 3, running(device)
    new = noise(len(ROWS), 3, heads, head_dim, seed=1).to(dtype)
    bias = noise(heads, CAPACITY, seed=2) if is_biased else None
    memory = Memory(SLOTS + 1, heads, head_dim, dtype)
    past = {
        row: [(int(slots.ancestors[slot, t]), t) for t in range(int(slots.position[slot]))]
        for row, slot in enumerate(ROWS)
        if slots.is_active[slot]
    }
    memory.fill({cell for cells in past.values() for cell in cells})
    given, expected = memory.on(device), torch.zeros(len(ROWS), heads, head_dim).double()
    for row, cells in past.items():
        query, key, value = new[row]
        expected[row] = memory.mixed(query, cells, 0.25, bias, (key, value))
    for row, cells in past.items():
        memory.keys[ROWS[row], :, len(cells)] = new[row, 1]
        memory.values[ROWS[row], :, len(cells)] = new[row, 2]
    found = operations.append_attend(
        new.flatten(1).to(device),
        given.keys,
        given.values,
        ints(ROWS, device),
        slots.position,
        slots.is_active,
        slots.ancestors,
        None if bias is None else bias.to(device),
        0.25,
    )
    assert found.dtype == dtype
    is_close(found, expected.flatten(1))
    assert given.is_equal(memory)


def check_cross_attend(
    operations: Operations, device: torch.device, dtype: torch.dtype, head_dim: int = 16
) -> None:
    heads, slots = 3, running(device)
    lengths = [CAPACITY - 1, 0, 16, 1, WILD, 17, 15, CAPACITY, WILD, WILD]
    source_of_row = [0, 1, 2, 3, 5, 6, 7, 7]  # the last two share theirs
    source_of_slot = [WILD] * (SLOTS + 1)
    query = noise(len(ROWS), heads, head_dim, seed=1).to(dtype)
    memory = Memory(SOURCES + 1, heads, head_dim, dtype)
    expected = torch.zeros(len(ROWS), heads, head_dim).double()
    for row, source in enumerate(source_of_row):
        source_of_slot[ROWS[row]] = source
        cells = [(source, step) for step in range(lengths[source])]
        memory.fill(cells)
        expected[row] = memory.mixed(query[row], cells, 0.5)
    given = memory.on(device)
    found = operations.cross_attend(
        query.flatten(1).to(device),
        given.keys,
        given.values,
        ints(ROWS, device),
        ints(source_of_slot, device),
        ints(lengths, device),
        slots.is_active,
        0.5,
    )
    assert found.dtype == dtype
    is_close(found, expected.flatten(1))
    assert given.is_equal(memory)


def check_independence(operations: Operations, device: torch.device, dtype: torch.dtype) -> None:
    """Check that a row's bits depend neither on its place nor on its neighbours; fused only."""
    heads, head_dim, found = 3, 16, []
    inputs = noise(SLOTS + 1, 3 * heads * head_dim, seed=3).to(dtype)
    for rows in (ROWS, [*reversed(ROWS), *[DUMMY] * 4], ROWS[3:5]):
        slots, keys = running(device), noise(SLOTS + 1, heads, CAPACITY, head_dim).to(device, dtype)
        place, own = ints(rows, device), inputs[rows].to(device)
        state = slots.position, slots.is_active
        mixed = operations.append_attend(
            own, keys, keys.clone(), place, *state, slots.ancestors, None, 0.5
        )
        each = ints([0] * (SLOTS + 1), device)
        read = operations.cross_attend(
            own[:, : heads * head_dim].contiguous(),
            keys,
            keys,
            place,
            each,
            each + 21,
            state[1],
            1.0,
        )
        found.append({slot: (mixed[row], read[row]) for row, slot in enumerate(rows)})
    for other in found[1:]:
        for slot, results in other.items():
            assert all(torch.equal(a, b) for a, b in zip(results, found[0][slot], strict=True))
