"""The kernels of a captured step, in Triton; importable only where Triton is.

Shapes are constants of each kernel, so that every address is known to be aligned and 16 bytes are
loaded at once; what differs between rows is read from memory by the kernel itself. Offsets into
keys and values are int64: 2,048 slots of 1,024 positions pass 2^31.
"""

import triton
import triton.language as tl

from model.captured.operations import HAS_ENDED, IS_FINITE, WAS_ACTIVE

_LOWEST = tl.constexpr(-3.0e38)  # a score below all others; finite, so that differences are
_HIGHEST = tl.constexpr(0x7FFFFFFF)
_WAS_ACTIVE, _HAS_ENDED = tl.constexpr(WAS_ACTIVE), tl.constexpr(HAS_ENDED)
_IS_FINITE = tl.constexpr(IS_FINITE)


@triton.jit
def embed_kernel(
    row_slot, tokens, places, is_active, table, positions, hidden, scale,
    HAS_POSITIONS: tl.constexpr, HAS_PADDING: tl.constexpr, OFFSET: tl.constexpr,
    PADDING: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program per row."""
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    slot = tl.load(row_slot + row)
    active = tl.load(is_active + slot) != 0
    mask = column < tl.where(active, WIDTH, 0)
    token = tl.where(active, tl.load(tokens + slot), 0)
    found = tl.load(table + token.to(tl.int64) * WIDTH + column, mask=mask, other=0)
    total = found.to(tl.float32) * scale
    if HAS_POSITIONS:
        place = tl.where(active, tl.load(places + slot), 0) + OFFSET
        if HAS_PADDING:
            place = tl.where(token == PADDING, OFFSET - 1, place)
        total += tl.load(positions + place * WIDTH + column, mask=mask, other=0).to(tl.float32)
    tl.store(hidden + row * WIDTH + column, total, mask=column < WIDTH)


@triton.jit
def add_norm_kernel(
    residual, update, weight, bias, onward, normed, epsilon,
    HAS_UPDATE: tl.constexpr, HAS_BIAS: tl.constexpr, IS_CENTRED: tl.constexpr,
    IS_PRE: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program per row."""
    column = tl.arange(0, BLOCK)
    mask = column < WIDTH
    cells = tl.program_id(0) * WIDTH + column
    total = tl.load(residual + cells, mask=mask, other=0)
    if HAS_UPDATE:
        total += tl.load(update + cells, mask=mask, other=0).to(tl.float32)
    centred = total
    if IS_CENTRED:
        centred = tl.where(mask, total - tl.sum(total, 0) / WIDTH, 0.0)
    variance = tl.sum(centred * centred, 0) / WIDTH
    result = centred * tl.rsqrt(variance + epsilon)
    result *= tl.load(weight + column, mask=mask, other=0).to(tl.float32)
    if HAS_BIAS:
        result += tl.load(bias + column, mask=mask, other=0).to(tl.float32)
    tl.store(onward + cells, total if IS_PRE else result, mask=mask)
    tl.store(normed + cells, result.to(normed.dtype.element_ty), mask=mask)


@triton.jit
def _take(query, key, value, is_readable, bias, best, total, mixed):
    """Let each lane see one more position: online softmax, lane by lane, without a barrier."""
    score = tl.sum(key.to(tl.float32) * query[None, :], 1) + bias
    score = tl.where(is_readable, score, _LOWEST)
    higher = tl.maximum(best, score)
    weight = tl.exp(score - higher)  # 0, or that of a lane which will be worth nothing
    decay = tl.exp(best - higher)
    total = total * decay + weight
    mixed = mixed * decay[:, None] + weight[:, None] * value.to(tl.float32)
    return higher, total, mixed


@triton.jit
def append_attend_kernel(
    qkv, keys, values, row_slot, position, is_active, ancestors, biases, out, scale,
    HAS_BIAS: tl.constexpr, HEADS: tl.constexpr, CAPACITY: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One program per row and head."""
    row, head = tl.program_id(0), tl.program_id(1)
    lane, column = tl.arange(0, BLOCK), tl.arange(0, WIDTH)
    target = out + (row * HEADS + head) * WIDTH + column
    own = qkv + (row * 3 * HEADS + head) * WIDTH + column
    query = tl.load(own).to(tl.float32) * scale
    key = tl.load(own + HEADS * WIDTH)
    value = tl.load(own + 2 * HEADS * WIDTH)
    slot = tl.load(row_slot + row).to(tl.int64)
    now = tl.load(position + slot)
    # Always one block ahead, and not masked by `now`, so that no load waits for two others.
    ahead = ancestors + slot * CAPACITY + lane
    holder = tl.load(ahead, mask=lane < CAPACITY, other=0)
    if tl.load(is_active + slot) != 0:
        cell = ((slot * HEADS + head) * CAPACITY + now) * WIDTH + column
        tl.store(keys + cell, key)
        tl.store(values + cell, value)
        newest = tl.sum(query * key.to(tl.float32), 0)
        if HAS_BIAS:
            newest += tl.load(biases + head * CAPACITY)
        best = tl.full([BLOCK], _LOWEST, tl.float32)
        total = tl.zeros([BLOCK], tl.float32)
        mixed = tl.zeros([BLOCK, WIDTH], tl.float32)
        for start in range(0, now, BLOCK):
            step = start + lane
            is_old = step < now
            line = holder.to(tl.int64) * HEADS + head
            cells = ((line * CAPACITY + step) * WIDTH)[:, None] + column[None, :]
            older = tl.load(keys + cells, mask=is_old[:, None], other=0)
            mixing = tl.load(values + cells, mask=is_old[:, None], other=0)
            holder = tl.load(ahead + start + BLOCK, mask=step + BLOCK < CAPACITY, other=0)
            bias = tl.zeros([BLOCK], tl.float32)
            if HAS_BIAS:
                bias = tl.load(biases + head * CAPACITY + now - step, mask=is_old, other=0)
            best, total, mixed = _take(query, older, mixing, is_old, bias, best, total, mixed)
        highest = tl.maximum(tl.max(best, 0), newest)
        decay, weight = tl.exp(best - highest), tl.exp(newest - highest)
        result = tl.sum(mixed * decay[:, None], 0) + weight * value.to(tl.float32)
        result /= tl.sum(total * decay, 0) + weight
        tl.store(target, result.to(out.dtype.element_ty))
    else:
        tl.store(target, tl.zeros([WIDTH], out.dtype.element_ty))


@triton.jit
def cross_attend_kernel(
    queries, keys, values, row_slot, source_of_slot, source_length, is_active, out, scale,
    HEADS: tl.constexpr, CAPACITY: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """One program per row and head."""
    row, head = tl.program_id(0), tl.program_id(1)
    lane, column = tl.arange(0, BLOCK), tl.arange(0, WIDTH)
    place = (row * HEADS + head) * WIDTH + column
    slot = tl.load(row_slot + row)
    active = tl.load(is_active + slot) != 0
    source = tl.where(active, tl.load(source_of_slot + slot), 0).to(tl.int64)
    length = tl.where(active, tl.load(source_length + source), 0)
    query = tl.load(queries + place).to(tl.float32) * scale
    best = tl.full([BLOCK], _LOWEST, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    mixed = tl.zeros([BLOCK, WIDTH], tl.float32)
    bias = tl.zeros([BLOCK], tl.float32)
    for start in tl.range(0, length, BLOCK, num_stages=STAGES):
        step = start + lane
        is_readable = step < length
        line = ((source * HEADS + head) * CAPACITY + step) * WIDTH
        cells = line[:, None] + column[None, :]
        key = tl.load(keys + cells, mask=is_readable[:, None], other=0)
        value = tl.load(values + cells, mask=is_readable[:, None], other=0)
        best, total, mixed = _take(query, key, value, is_readable, bias, best, total, mixed)
    decay = tl.exp(best - tl.max(best, 0))
    divisor = tl.where(length > 0, tl.sum(total * decay, 0), 1.0)
    result = tl.sum(mixed * decay[:, None], 0) / divisor  # 0 where there is no position
    tl.store(out + place, result.to(out.dtype.element_ty))


@triton.jit
def _rank(value, token):
    """Return int64 that order as the floats, NaN above all, and equal ones by the lowest token."""
    bits = tl.where(value == 0, 0.0, value).to(tl.int32, bitcast=True)  # -0 equals 0
    order = bits ^ ((bits >> 31) & _HIGHEST)
    order = tl.where(value != value, _HIGHEST, order)
    return (order.to(tl.int64) << 32) | (token ^ _HIGHEST).to(tl.int64)


@triton.jit
def _unrank(rank):
    """Return value and token of a rank; the value of what was NaN is NaN."""
    order = (rank >> 32).to(tl.int32)
    bits = order ^ ((order >> 31) & _HIGHEST)
    return bits.to(tl.float32, bitcast=True), rank.to(tl.int32) ^ _HIGHEST


@triton.jit
def pick_kernel(
    logits, biases, row_slot, position, minimum, values, tokens,
    BIAS_LENGTH: tl.constexpr, END: tl.constexpr, VOCABULARY: tl.constexpr, STRIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One program per row and part."""
    row, part = tl.program_id(0), tl.program_id(1)
    column = part * BLOCK + tl.arange(0, BLOCK)
    is_real = column < VOCABULARY
    never = float("-inf")
    # Masked by the columns that there are, whose number is even where that of tokens is not.
    cells = logits + row.to(tl.int64) * STRIDE + column
    logit = tl.load(cells, mask=column < STRIDE, other=never)
    slot = tl.load(row_slot + row)
    is_early = tl.load(position + slot) < tl.load(minimum + slot)
    if BIAS_LENGTH:
        bias = tl.load(biases + column, mask=column < BIAS_LENGTH, other=0)
        logit = tl.where(bias == never, never, logit + bias)
    logit = tl.where((column == END) & is_early, never, logit)
    # What is no token ranks below every token.
    rank = tl.where(is_real, _rank(logit, column), -0x7FFFFFFFFFFFFFFF)
    value, token = _unrank(tl.max(rank, 0))
    cell = row * tl.num_programs(1) + part
    tl.store(values + cell, value)
    tl.store(tokens + cell, token)


@triton.jit(do_not_specialize=["rows"])
def advance_kernel(
    values, tokens, row_slot, slot_token, position, is_active, minimum, max_position, history,
    ancestors, forced, entry, cells, rows,
    END: tl.constexpr, PARTS: tl.constexpr, CAPACITY: tl.constexpr, FORCED: tl.constexpr,
    ENTRIES: tl.constexpr, PLACES: tl.constexpr, BLOCK: tl.constexpr, PART_BLOCK: tl.constexpr,
):  # fmt: skip
    """One program for all rows, so that the entry is read by all before it moves on."""
    row, part = tl.arange(0, BLOCK), tl.arange(0, PART_BLOCK)
    is_row = row < rows
    is_part = is_row[:, None] & (part < PARTS)[None, :]
    spot = row[:, None] * PARTS + part[None, :]
    value = tl.load(values + spot, mask=is_part, other=0)
    token = tl.load(tokens + spot, mask=is_part, other=0)
    rank = tl.where(is_part, _rank(value, token), -0x7FFFFFFFFFFFFFFF)
    highest, picked = _unrank(tl.max(rank, 1))
    is_finite = tl.abs(highest) < float("inf")
    slot = tl.load(row_slot + row, mask=is_row, other=0)
    active = (tl.load(is_active + slot, mask=is_row, other=0) != 0) & is_row
    now = tl.load(position + slot, mask=active, other=0)
    must = tl.load(forced + slot * FORCED + now, mask=active & (now < FORCED), other=-1)
    chosen = tl.where(is_finite, tl.where(must >= 0, must, picked), 0)
    chosen = tl.where(active, chosen, 0)
    least = tl.load(minimum + slot, mask=active, other=0)
    most = tl.load(max_position + slot, mask=active, other=0)
    box = tl.load(entry)
    has_ended = (chosen == END) & (now >= least) | (now + 1 >= most) | (is_finite == 0)
    # All threads have read before the first writes.
    tl.debug_barrier()
    following = now + 1
    tl.store(slot_token + slot, chosen, mask=active)
    tl.store(position + slot, following, mask=active)
    tl.store(is_active + slot, 0, mask=active & has_ended)
    tl.store(history + slot * (CAPACITY + 1) + following, chosen, mask=active)
    own = active & (following < CAPACITY)
    tl.store(ancestors + slot * CAPACITY + following, slot, mask=own)
    flags = tl.where(has_ended, _HAS_ENDED, 0) + tl.where(is_finite, _IS_FINITE, 0) + _WAS_ACTIVE
    target = cells + box * 2 * PLACES + row
    tl.store(target, chosen, mask=is_row)
    tl.store(target + PLACES, tl.where(active, flags, 0), mask=is_row)
    tl.store(entry, (box + 1) % ENTRIES)
