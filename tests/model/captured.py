"""What any implementation of a captured step's operations must do, checked against slow loops.

Each check takes operations and a device; what may not be read is poison there: NaN, or an index
that is outside of everything. `is_close` allows a result one rounding.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from model.captured.operations import Likeliest, NormKind, Operations, Outbox, Slots

SLOTS, CAPACITY, SOURCES = 12, 32, 9
DUMMY, LENGTHS = SLOTS, (0, 1, 15, 16, 17, CAPACITY - 1)
ROWS = [7, 2, 9, 0, 4, 11, 5, 3, 10, DUMMY, DUMMY, DUMMY]  # the slot of each row
BRANCHED, INACTIVE = {5: 8, 3: 5}, 10  # slots whose history is partly another's, and an idle one
AT = 20  # where the branched ones are
WILD = 1_000_000_007  # an index that may not be used
VOCABULARY, END = 50, 2
NAN, INF = math.nan, math.inf


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


def bits(tensor: Tensor) -> Tensor:
    """Return what can be compared where there are NaN."""
    return tensor.cpu().view(torch.int16 if tensor.element_size() == 2 else torch.int32)


def mixed_by_hand(
    query: Tensor, keys: list[Tensor], values: list[Tensor], scale: float, bias: list[float]
) -> Tensor:
    """Attend from one query [D] to cells of [D] each, in float64."""
    scores = [
        float((query.double() * key.double()).sum()) * scale + each
        for key, each in zip(keys, bias, strict=True)
    ]
    weights = [math.exp(score - max(scores)) for score in scores]
    mixed = torch.zeros(len(query), dtype=torch.float64)
    for weight, value in zip(weights, values, strict=True):
        mixed += weight / sum(weights) * value.double()
    return mixed


def check_append_attend(
    operations: Operations,
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int = 16,
    is_biased: bool = False,
) -> None:
    heads, slots = 3, running(device)
    new = noise(len(ROWS), 3, heads, head_dim, seed=1).to(dtype)
    cells = [torch.full((SLOTS + 1, heads, CAPACITY, head_dim), NAN, dtype=dtype) for _ in "kv"]
    bias = noise(heads, CAPACITY, seed=2) if is_biased else None
    is_active = slots.is_active.tolist()
    readable = {
        (int(holder), step)
        for slot in ROWS
        if is_active[slot]
        for step, holder in enumerate(slots.ancestors[slot, : slots.position[slot]])
    }
    for seed, pool in enumerate(cells):
        for slot, step in sorted(readable):
            pool[slot, :, step] = noise(heads, head_dim, seed=1000 * seed + 40 * slot + step)
    expected, after = torch.zeros(len(ROWS), heads, head_dim).double(), [c.clone() for c in cells]
    for row, slot in enumerate(ROWS):
        if not is_active[slot]:
            continue
        now = int(slots.position[slot])
        past = [(int(slots.ancestors[slot, step]), step) for step in range(now)]
        for head in range(heads):
            keys, values = ([pool[s, head, t] for s, t in past] for pool in cells)
            expected[row, head] = mixed_by_hand(
                new[row, 0, head],
                [*keys, new[row, 1, head]],
                [*values, new[row, 2, head]],
                0.25,
                [0.0 if bias is None else float(bias[head, now - t]) for t in range(now + 1)],
            )
        after[0][slot, :, now], after[1][slot, :, now] = new[row, 1], new[row, 2]
    keys, values = (pool.to(device) for pool in cells)
    found = operations.append_attend(
        new.flatten(1).to(device),
        keys,
        values,
        ints(ROWS, device),
        slots.position,
        slots.is_active,
        slots.ancestors,
        None if bias is None else bias.to(device),
        0.25,
    )
    assert found.dtype == dtype
    is_close(found, expected.flatten(1))
    assert torch.equal(bits(keys), bits(after[0]))
    assert torch.equal(bits(values), bits(after[1]))


def check_cross_attend(
    operations: Operations, device: torch.device, dtype: torch.dtype, head_dim: int = 16
) -> None:
    heads, slots = 3, running(device)
    lengths = [CAPACITY - 1, 0, 16, 1, WILD, 17, 15, CAPACITY, WILD, WILD]
    source_of_slot = [WILD] * (SLOTS + 1)
    for row, source in enumerate([0, 1, 2, 3, 5, 6, 7, 7]):  # two share the last
        source_of_slot[ROWS[row]] = source
    query = noise(len(ROWS), heads, head_dim, seed=1).to(dtype)
    cells = [torch.full((SOURCES + 1, heads, CAPACITY, head_dim), NAN, dtype=dtype) for _ in "kv"]
    for seed, pool in enumerate(cells):
        for source, length in enumerate(lengths):
            if length <= CAPACITY:
                pool[source, :, :length] = noise(heads, length, head_dim, seed=10 * seed + source)
    expected = torch.zeros(len(ROWS), heads, head_dim).double()
    for row, slot in enumerate(ROWS[:8]):
        source, length = source_of_slot[slot], lengths[source_of_slot[slot]]
        for head in range(heads if length else 0):
            keys, values = (list(pool[source, head, :length]) for pool in cells)
            expected[row, head] = mixed_by_hand(query[row, head], keys, values, 0.5, [0.0] * length)
    before = [pool.clone() for pool in cells]
    keys, values = (pool.to(device) for pool in cells)
    found = operations.cross_attend(
        query.flatten(1).to(device),
        keys,
        values,
        ints(ROWS, device),
        ints(source_of_slot, device),
        ints(lengths, device),
        slots.is_active,
        0.5,
    )
    assert found.dtype == dtype
    is_close(found, expected.flatten(1))
    assert torch.equal(bits(keys), bits(before[0]))
    assert torch.equal(bits(values), bits(before[1]))


def check_add_norm(
    operations: Operations,
    device: torch.device,
    dtype: torch.dtype,
    kind: NormKind,
    is_pre: bool,
    width: int = 96,
) -> None:
    rows, epsilon = 3, 1e-3
    residual = 1.5 + noise(rows, width)
    update = (2 * noise(rows, width, seed=1)).to(dtype)
    weight, bias = (noise(width, seed=seed).to(dtype) for seed in (2, 3))
    choices = [(update, bias), (None, bias), (update, None), (update.float(), bias)]
    for branch, shift in choices:
        expected = torch.zeros(2, rows, width).double()
        for row in range(rows):
            total = residual[row].double() + (0 if branch is None else branch[row].double())
            centred = total - (sum(total.tolist()) / width if kind == "layer" else 0)
            mean = sum(each * each for each in centred.tolist()) / width
            normed = centred / math.sqrt(mean + epsilon) * weight.double()
            normed = normed + (0 if shift is None else shift.double())
            expected[0, row], expected[1, row] = (total if is_pre else normed), normed
        given = residual.to(device)
        onward, found = operations.add_norm(
            given,
            None if branch is None else branch.to(device),
            weight.to(device),
            None if shift is None else shift.to(device),
            epsilon,
            kind,
            is_pre,
            dtype,
        )
        assert (onward.dtype, found.dtype) == (torch.float32, dtype)
        is_close(onward, expected[0])
        is_close(found, expected[1])
        assert torch.equal(given.cpu(), residual)


def check_embed(operations: Operations, device: torch.device, dtype: torch.dtype) -> None:
    width, slots = 24, running(device)
    slots.token[ROWS[3]] = padding = 1
    table, positions = noise(VOCABULARY, width).to(dtype), noise(CAPACITY + 5, width, seed=1)
    for places, offset, pad in ((None, 0, None), (positions, 2, None), (positions, 5, padding)):
        expected = torch.zeros(len(ROWS), width).double()
        for row, slot in enumerate(ROWS):
            if not slots.is_active[slot]:
                continue
            token, place = int(slots.token[slot]), int(slots.position[slot]) + offset
            expected[row] = table[token].double() * 3.5
            if places is not None:
                expected[row] += places.to(dtype)[offset - 1 if token == pad else place].double()
        found = operations.embed(
            ints(ROWS, device),
            slots,
            table.to(device),
            3.5,
            None if places is None else places.to(device, dtype),
            offset,
            pad,
        )
        assert found.dtype == torch.float32
        is_close(found, expected)


def merged(likeliest: Likeliest) -> list[tuple[float, int]]:
    """Return value and token of each row, as `Advance` reads them."""
    found = []
    values, tokens = likeliest.values.tolist(), likeliest.tokens.tolist()
    for line, ids in zip(values, tokens, strict=True):
        is_nan = any(math.isnan(value) for value in line)
        best = NAN if is_nan else max(line)
        lowest = min((i for v, i in zip(line, ids, strict=True) if v == best), default=-1)
        found.append((best, lowest))
    return found


def likeliest_by_hand(
    line: list[float], bias: list[float], banned: int | None
) -> tuple[float, int]:
    """Return the highest logit that counts, and the first token that has it."""
    best, found, is_nan = -INF, -1, False
    for token, shift in enumerate(bias):
        if shift == -INF or token == banned:
            continue
        value = line[token] + shift
        is_nan |= math.isnan(value)
        if value > best:
            best, found = value, token
    return (NAN if is_nan else best), found


def check_pick(operations: Operations, device: torch.device, vocabulary: int, columns: int) -> None:
    """Check ties, infinities and NaN; logits are eighths, whose sums are exact."""
    slots = running(device)
    rows, last = 8, vocabulary - 1
    logits = torch.full((len(ROWS), columns), NAN)
    logits[:rows, :vocabulary] = (8 * noise(rows, vocabulary)).round() / 8 - 9
    logits[0, [5, 7, last]] = 30.0  # equal ones, in parts that lie far apart
    logits[1, [3, 9, last]] = torch.tensor([-0.0, 0.0, 0.0]) + 40  # and below, with a bias
    logits[1, [3, 9]] = torch.tensor([0.0, -0.0])
    logits[1, last] = -1
    logits[2] = -INF  # nothing is left, beyond the vocabulary nor in it
    logits[3, last] = NAN
    logits[4, last] = INF
    logits[5, END] = 50  # not yet
    logits[6, END] = 50  # just now
    logits[7, 11] = NAN  # does not count
    logits[:, vocabulary:] = torch.tensor([NAN, INF]).repeat(columns)[: columns - vocabulary]
    slots.minimum[ROWS[5]] = slots.position[ROWS[5]] + 1
    slots.minimum[ROWS[6]] = slots.position[ROWS[6]]
    shifts = [torch.zeros(vocabulary), (8 * noise(columns, seed=5)).round() / 8]
    shifts[1][vocabulary:] = NAN
    for shift in shifts:
        shift[11] = -INF
    for bias in (None, *shifts):
        found = operations.pick(
            logits.to(device),
            vocabulary,
            None if bias is None else bias.to(device),
            ints(ROWS, device),
            slots,
            END,
        )
        assert (found.values.dtype, found.tokens.dtype) == (torch.float32, torch.int32)
        assert 0 <= int(found.tokens[:rows].min()) <= int(found.tokens[:rows].max()) < vocabulary
        added = [0.0] * vocabulary if bias is None else bias[:vocabulary].tolist()
        for row, (value, token) in enumerate(merged(found)[:rows]):
            banned = END if row == 5 else None
            best, lowest = likeliest_by_hand(logits[row].tolist(), added, banned)
            assert value == best or (math.isnan(value) and math.isnan(best)), row
            assert not math.isfinite(best) or token == lowest, row


def check_advance(operations: Operations, device: torch.device, parts: int) -> None:
    """Check each way in which a row goes on or ends, and that nothing else is written."""
    slots = slots_at({slot: 5 for slot in ROWS[:9] if slot != INACTIVE}, device)
    slots.position[ROWS[0]] = CAPACITY - 1  # at its end, and beyond the forced tokens
    slots.max_position[ROWS[1]] = 6
    slots.minimum[ROWS[2]] = 5  # the end may come, and comes
    slots.position[ROWS[3]], slots.minimum[ROWS[3]] = 3, 4  # an end token in a prefix
    slots.forced[ROWS[3], 3] = END
    slots.position[ROWS[4]] = 2
    slots.forced[ROWS[4], 2] = 33
    slots.position[ROWS[7]] = 0  # forced, yet not finite
    slots.forced[ROWS[7], 0] = 33
    slots.forced[INACTIVE], slots.forced[DUMMY] = 40, 41
    values = noise(len(ROWS), parts) - 5
    tokens = torch.randint(3, VOCABULARY, values.shape, generator=torch.Generator().manual_seed(1))
    values[0, -1] = values[0, 0] = 7
    tokens[0, 0], tokens[0, -1] = 20, 13  # of equal ones the lowest
    values[2, 0], tokens[2, 0] = 9, END
    values[5], values[6, -1], values[7, 0] = -INF, NAN, INF
    tokens[8:], values[9] = WILD, NAN
    entries, places = 3, len(ROWS) + 2
    outbox = Outbox(ints([2], device), ints(torch.full((entries, 2, places), WILD), device))
    expected = {
        name: getattr(slots, name).tolist() for name in Slots.__dataclass_fields__
    }  # by hand below
    took = [13, tokens[1, values[1].argmax()], END, END, 33, 0, 0, 0]
    ended = [True, True, True, False, False, True, True, True]
    finite = [True, True, True, True, True, False, False, False]
    cells = torch.full((entries, 2, places), WILD)
    cells[2, :, : len(ROWS)] = 0
    for row, slot in enumerate(ROWS[:8]):
        token, position = int(took[row]), expected["position"][slot] + 1
        expected["token"][slot] = expected["history"][slot][position] = token
        expected["position"][slot], expected["is_active"][slot] = position, int(not ended[row])
        if position < CAPACITY:
            expected["ancestors"][slot][position] = slot
        cells[2, 0, row] = token
        cells[2, 1, row] = 1 + 2 * ended[row] + 4 * finite[row]
    likeliest = Likeliest(values.to(device), ints(tokens, device))
    operations.advance(likeliest, ints(ROWS, device), slots, outbox, END)
    for name, lines in expected.items():
        assert getattr(slots, name).tolist() == lines, name
    assert outbox.cells.tolist() == cells.tolist()
    assert outbox.entry.tolist() == [0]
