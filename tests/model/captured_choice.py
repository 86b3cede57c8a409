"""What any implementation of the other operations must do, as `captured` has it of attention."""

import math
from typing import Any

import torch

from model.captured.operations import Likeliest, NormKind, Operations, Outbox, Slots
from tests.model.captured import (
    CAPACITY,
    DUMMY,
    INACTIVE,
    NAN,
    ROWS,
    VOCABULARY,
    WILD,
    ints,
    is_close,
    noise,
    running,
    slots_at,
)

END, INF = 2, math.inf


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
    logits[1, [3, 9]] = torch.tensor([-0.0, 0.0])  # above all others, and equal
    logits[2] = -INF  # nothing is left, beyond the vocabulary nor in it
    logits[3, last] = -NAN  # whose bits are below all others'
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
    slots.forced[ROWS[0]] = 44
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
    values[5], values[6, -1], values[7, 0] = -INF, -NAN, INF
    tokens[8:], values[9] = WILD, NAN
    entries, places = 3, len(ROWS) + 2
    outbox = Outbox(ints([2], device), ints(torch.full((entries, 2, places), WILD), device))
    expected: dict[str, Any] = {
        name: getattr(slots, name).tolist() for name in Slots.__dataclass_fields__
    }
    took = [13, int(tokens[1, values[1].argmax()]), END, END, 33, 0, 0, 0]
    ended = [True, True, True, False, False, True, True, True]
    finite = [True, True, True, True, True, False, False, False]
    cells = torch.full((entries, 2, places), WILD)
    cells[2, :, : len(ROWS)] = 0
    for row, slot in enumerate(ROWS[:8]):
        token, position = took[row], expected["position"][slot] + 1
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
