"""The operations of a captured step as launches of Triton kernels: one each.

Importable only where Triton is. All need contiguous tensors on one device, and allocate what they
return. Products and sums are fused, which later versions of Triton only do where they are told.
"""

import torch
import triton
from torch import Tensor

from model.captured import kernels
from model.captured.operations import Likeliest, NormKind, Operations, Outbox, Slots

_PARTS = 32  # of a vocabulary, at most: one program merges those of all rows
_COLUMNS = 1024  # of a part, at least


def _block(size: int) -> int:
    """Return the smallest power of two that is at least `size`."""
    return 1 << (size - 1).bit_length()


def _warps(width: int) -> int:
    """Return by how many warps a row of `width` is read, so that each thread loads 16 bytes."""
    return min(max(_block(width) // 256, 1), 8)


def _positions(keys: Tensor, size: int) -> int:
    """Return how many positions of a head are read at once, at most `size` bytes and 64."""
    return min(size // (keys.shape[3] * keys.element_size()), 64)


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
    rows, width = len(row_slot), table.shape[1]
    hidden = torch.empty(rows, width, dtype=torch.float32, device=table.device)
    kernels.embed_kernel[(rows,)](
        row_slot,
        slots.token,
        slots.position,
        slots.is_active,
        table,
        table if positions is None else positions,
        hidden,
        scale,
        HAS_POSITIONS=positions is not None,
        HAS_PADDING=padding is not None,
        OFFSET=offset,
        PADDING=padding or 0,
        WIDTH=width,
        BLOCK=_block(width),
        num_warps=_warps(width),
        enable_fp_fusion=True,
    )
    return hidden


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
    rows, width = residual.shape
    onward, normed = torch.empty_like(residual), torch.empty_like(residual, dtype=dtype)
    kernels.add_norm_kernel[(rows,)](
        residual,
        residual if update is None else update,
        weight,
        weight if bias is None else bias,
        onward,
        normed,
        epsilon,
        HAS_UPDATE=update is not None,
        HAS_BIAS=bias is not None,
        IS_CENTRED=kind == "layer",
        IS_PRE=is_pre,
        WIDTH=width,
        BLOCK=_block(width),
        num_warps=_warps(width),
        enable_fp_fusion=True,
    )
    return onward, normed


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
    *,
    block: int | None = None,
    warps: int = 4,
) -> Tensor:
    """Append single positions and attend to all up to them; the contract is `AppendAttend`'s.

    Args:
        block: positions that are read at once, a power of two; by itself, 4 KiB of keys.
        warps: of each program.
    """
    rows, (_, heads, capacity, width) = len(qkv), keys.shape
    mixed = torch.empty(rows, heads * width, dtype=qkv.dtype, device=qkv.device)
    kernels.append_attend_kernel[(rows, heads)](
        qkv,
        keys,
        values,
        row_slot,
        position,
        is_active,
        ancestors,
        ancestors if bias is None else bias,
        mixed,
        scale,
        HAS_BIAS=bias is not None,
        HEADS=heads,
        CAPACITY=capacity,
        WIDTH=width,
        BLOCK=block or _positions(keys, 4096),
        num_warps=warps,
        enable_fp_fusion=True,
    )
    return mixed


def cross_attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    row_slot: Tensor,
    source_of_slot: Tensor,
    source_length: Tensor,
    is_active: Tensor,
    scale: float,
    *,
    block: int | None = None,
    warps: int = 4,
    stages: int = 1,
) -> Tensor:
    """Attend from single positions to their sources; the contract is `CrossAttend`'s.

    Args:
        block: positions that are read at once, a power of two; by itself, 8 KiB of keys.
        warps: of each program.
        stages: above 1, so many blocks are under way to shared memory at once; that is for few
            programs that read long sources.
    """
    rows, (_, heads, capacity, width) = len(query), keys.shape
    mixed = torch.empty_like(query)
    kernels.cross_attend_kernel[(rows, heads)](
        query,
        keys,
        values,
        row_slot,
        source_of_slot,
        source_length,
        is_active,
        mixed,
        scale,
        HEADS=heads,
        CAPACITY=capacity,
        WIDTH=width,
        BLOCK=block or _positions(keys, 8192),
        STAGES=stages,
        num_warps=warps,
        enable_fp_fusion=True,
    )
    return mixed


def pick(
    logits: Tensor,
    vocabulary: int,
    bias: Tensor | None,
    row_slot: Tensor,
    slots: Slots,
    end: int,
) -> Likeliest:
    """Find the likeliest token of each row, by parts; the contract is `Pick`'s."""
    rows, stride = logits.shape
    block = max(_block(triton.cdiv(vocabulary, _PARTS)), _COLUMNS)
    parts = triton.cdiv(vocabulary, block)
    values = torch.empty(rows, parts, dtype=torch.float32, device=logits.device)
    tokens = torch.empty(rows, parts, dtype=torch.int32, device=logits.device)
    kernels.pick_kernel[(rows, parts)](
        logits,
        logits if bias is None else bias,
        row_slot,
        slots.position,
        slots.minimum,
        values,
        tokens,
        BIAS_LENGTH=0 if bias is None else len(bias),
        END=end,
        VOCABULARY=vocabulary,
        STRIDE=stride,
        BLOCK=block,
        num_warps=min(block // 256, 8),
        enable_fp_fusion=True,
    )
    return Likeliest(values, tokens)


def advance(likeliest: Likeliest, row_slot: Tensor, slots: Slots, outbox: Outbox, end: int) -> None:
    """Let each active row take its token; the contract is `Advance`'s."""
    rows, parts = likeliest.values.shape
    entries, _, places = outbox.cells.shape
    kernels.advance_kernel[(1,)](
        likeliest.values,
        likeliest.tokens,
        row_slot,
        slots.token,
        slots.position,
        slots.is_active,
        slots.minimum,
        slots.max_position,
        slots.history,
        slots.ancestors,
        slots.forced,
        outbox.entry,
        outbox.cells,
        rows,
        END=end,
        PARTS=parts,
        CAPACITY=slots.ancestors.shape[1],
        FORCED=slots.forced.shape[1],
        ENTRIES=entries,
        PLACES=places,
        BLOCK=_block(rows),
        PART_BLOCK=_block(parts),
        num_warps=8,
        enable_fp_fusion=True,
    )


OPERATIONS = Operations(
    embed=embed,
    add_norm=add_norm,
    append_attend=append_attend,
    cross_attend=cross_attend,
    pick=pick,
    advance=advance,
)
