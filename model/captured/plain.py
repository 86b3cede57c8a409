"""The operations of a captured step in plain PyTorch: static shapes, and selects instead of masks.

They are what runs on a CPU, and what a fused kernel that fails is replaced by.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.captured.operations import (
    HAS_ENDED,
    IS_FINITE,
    WAS_ACTIVE,
    Likeliest,
    NormKind,
    Operations,
    Outbox,
    Slots,
)

_NEVER = float("-inf")


def embed(
    row_slot: Tensor,
    slots: Slots,
    table: Tensor,
    scale: float,
    positions: Tensor | None,
    offset: int,
    padding: int | None,
) -> Tensor:
    """Embed what each row reads; the contract is `Embed`'s."""
    slot = row_slot.long()
    is_active = slots.is_active[slot] != 0
    token = slots.token[slot].where(is_active, 0)
    hidden = F.embedding(token, table).float() * scale
    if positions is not None:
        place = slots.position[slot].where(is_active, 0) + offset
        if padding is not None:
            place = place.masked_fill(token == padding, offset - 1)
        hidden = hidden + F.embedding(place, positions).float()
    return hidden.masked_fill(~is_active[:, None], 0)


def add_norm(
    residual: Tensor,
    update: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    kind: NormKind,
    is_pre: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Add a branch to the residual stream and norm the sum; the contract is `AddNorm`'s."""
    total = residual if update is None else residual + update.float()
    centred = total - total.mean(1, keepdim=True) if kind == "layer" else total
    variance = centred.square().mean(1, keepdim=True)
    normed = centred * torch.rsqrt(variance + epsilon) * weight.float()
    if bias is not None:
        normed = normed + bias.float()
    return total if is_pre else normed, normed.to(dtype)


def append_attend(
    qkv: Tensor,
    keys: Tensor,
    values: Tensor,
    row_slot: Tensor,
    position: Tensor,
    is_active: Tensor,
    ancestors: Tensor,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    """Append single positions and attend to all up to them; the contract is `AppendAttend`'s."""
    heads, capacity, head_dim = keys.shape[1:]
    query, *new = qkv.view(len(qkv), 3, heads, head_dim).unbind(1)
    slot, steps = row_slot.long(), torch.arange(capacity, device=qkv.device)
    active = is_active[slot] != 0
    now = position[slot].long().where(active, 0)
    is_new = steps == now[:, None]
    is_old = (steps < now[:, None]) & active[:, None]
    holder = ancestors[slot].long().where(is_old, 0)
    seen = []
    for cells, own in zip((keys, values), new, strict=True):
        cells[slot, :, now] = own.where(active[:, None, None], cells[slot, :, now])
        old = cells[holder, :, steps].where(is_old[:, :, None, None], 0)  # [rows, T, H, D]
        seen.append(own[:, None].where(is_new[:, :, None, None], old))
    distance = (now[:, None] - steps).clamp(min=0)
    by_head = None if bias is None else bias[:, distance].transpose(0, 1)
    return _mix(query, seen[0], seen[1], is_old | is_new, by_head, active, scale)


def cross_attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    row_slot: Tensor,
    source_of_slot: Tensor,
    source_length: Tensor,
    is_active: Tensor,
    scale: float,
) -> Tensor:
    """Attend from single positions to their sources; the contract is `CrossAttend`'s."""
    heads, capacity, head_dim = keys.shape[1:]
    slot = row_slot.long()
    active = is_active[slot] != 0
    source = source_of_slot[slot].long().where(active, 0)
    length = source_length[source].where(active, 0)
    is_readable = torch.arange(capacity, device=query.device) < length[:, None]
    seen = [
        cells[source].transpose(1, 2).where(is_readable[:, :, None, None], 0)
        for cells in (keys, values)
    ]
    by_head = query.view(-1, heads, head_dim)
    return _mix(by_head, seen[0], seen[1], is_readable, None, length > 0, scale)


def _mix(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    is_readable: Tensor,
    bias: Tensor | None,
    is_live: Tensor,
    scale: float,
) -> Tensor:
    """Mix [rows, positions, H, D] of values by how well keys match [rows, H, D] of queries.

    Args:
        is_readable: [rows, positions]; what is not must be finite.
        bias: [rows, H, positions].
        is_live: [rows]; others get 0, and may have nothing that is readable.
    """
    scores = torch.einsum("rhd,rthd->rht", query.float(), keys.float()) * scale
    if bias is not None:
        scores = scores + bias
    weights = scores.masked_fill(~is_readable[:, None], _NEVER).softmax(2)
    mixed = torch.einsum("rht,rthd->rhd", weights, values.float()).flatten(1)
    return mixed.masked_fill(~is_live[:, None], 0).to(query.dtype)


def pick(
    logits: Tensor,
    vocabulary: int,
    bias: Tensor | None,
    row_slot: Tensor,
    slots: Slots,
    end: int,
) -> Likeliest:
    """Find the likeliest token of each row, in one part; the contract is `Pick`'s."""
    slot = row_slot.long()
    logits = logits[:, :vocabulary]
    columns = torch.arange(vocabulary, dtype=torch.int32, device=logits.device)
    is_early = slots.position[slot] < slots.minimum[slot]
    is_never = is_early[:, None] & (columns == end)
    if bias is not None:
        bias = bias[:vocabulary]
        logits = logits + bias
        is_never = is_never | (bias == _NEVER)
    logits = logits.masked_fill(is_never, _NEVER)
    values = logits.amax(1, keepdim=True)  # NaN if any is
    return Likeliest(values, _lowest(columns, logits == values, vocabulary))


def _lowest(tokens: Tensor, is_best: Tensor, limit: int) -> Tensor:
    """Return [rows, 1], the lowest of `tokens` that is best; the last below `limit` if none is."""
    return tokens.where(is_best, limit - 1).amin(1, keepdim=True).int()


def advance(likeliest: Likeliest, row_slot: Tensor, slots: Slots, outbox: Outbox, end: int) -> None:
    """Let each active row take its token; the contract is `Advance`'s."""
    slot = row_slot.long()
    active = slots.is_active[slot] != 0
    position = slots.position[slot].long().where(active, 0)
    best = likeliest.values.amax(1, keepdim=True)
    is_finite = best.isfinite().squeeze(1)
    highest = torch.iinfo(torch.int32).max
    picked = _lowest(likeliest.tokens, likeliest.values == best, highest).squeeze(1)
    token = _forced_or(picked, position, slots.forced[slot]).where(is_finite & active, 0)
    following = position + 1
    is_end = (token == end) & (following > slots.minimum[slot])
    is_last = following >= slots.max_position[slot]
    has_ended = active & (~is_finite | is_end | is_last)
    _record(slots, slot, active, token, following)
    slots.is_active[slot] = (active & ~has_ended).int()
    flags = active * WAS_ACTIVE + has_ended * HAS_ENDED + (active & is_finite) * IS_FINITE
    entry = outbox.entry.long()
    cells = outbox.cells[:, :, : len(row_slot)]
    cells.index_copy_(0, entry, torch.stack([token, flags.int()])[None])
    outbox.entry.copy_((entry + 1) % len(cells))


def _forced_or(picked: Tensor, position: Tensor, forced: Tensor) -> Tensor:
    """Return the token that each row must take, or else the one it picked, [rows] int32."""
    width = forced.shape[1]
    here = forced.gather(1, position.clamp(max=width - 1)[:, None]).squeeze(1)
    return here.where((position < width) & (here >= 0), picked)


def _record(slots: Slots, slot: Tensor, active: Tensor, token: Tensor, following: Tensor) -> None:
    """Write the tokens of active rows to their slots; what others hold is written back to them."""
    slots.token[slot] = token.where(active, slots.token[slot])
    slots.position[slot] = following.int().where(active, slots.position[slot])
    slots.history[slot, following] = token.where(active, slots.history[slot, following])
    last = slots.ancestors.shape[1] - 1
    place = following.clamp(max=last)
    is_own = active & (following <= last)
    slots.ancestors[slot, place] = slot.int().where(is_own, slots.ancestors[slot, place])


OPERATIONS = Operations(
    embed=embed,
    add_norm=add_norm,
    append_attend=append_attend,
    cross_attend=cross_attend,
    pick=pick,
    advance=advance,
)
