"""Stage attention: the captured step's attention and its rivals, by rows, heads and source."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu import machines, protocols, states
from benchmarks.gpu.context import Context
from benchmarks.gpu.limits import H100
from benchmarks.gpu.timing import median_s, replayable, spin
from model.captured import plain
from model.captured.operations import Operations

_CACHE_BYTES = 200e6  # rotated through
_HEAD_DIM, _SCALE, _PLAIN = 64, 0.125, "plain"
Attend = Callable[[Tensor, Tensor], object]


@dataclass(frozen=True, slots=True)
class Case:
    """Rows whose sources have `lengths`, held in `capacity` positions each."""

    rows: int
    heads: int
    source: int
    lengths: tuple[int, ...]
    capacity: int

    @property
    def name(self) -> str:
        """As the predictions call it."""
        return f"{self.rows} x {self.heads} x {self.source}"

    @property
    def read_bytes(self) -> int:
        """Keys and values of the positions that are there."""
        return sum(self.lengths) * self.heads * _HEAD_DIM * 2 * 2


@dataclass(frozen=True, slots=True)
class Inputs:
    """What every kernel reads.

    Attributes:
        caches: keys and values [rows + 1, heads, capacity, head_dim]; a chip's cache is smaller.
        query: [rows, heads * head_dim].
        lengths: [rows + 1] int32.
    """

    case: Case
    caches: Sequence[tuple[Tensor, Tensor]]
    query: Tensor
    lengths: Tensor


def _even(rows: int, heads: int, source: int) -> Case:
    return Case(rows, heads, source, (source,) * rows, -(-source // 16) * 16)


def _summaries(rows: int) -> Case:
    lengths = tuple(protocols.spread(*protocols.BART_SOURCES, rows, seed=4))
    return Case(rows, 16, 350, lengths, 448)


CASES = (
    _summaries(128),
    _even(64, 8, 32),
    _summaries(32),
    _even(8, 16, 1024),
    _even(64, 8, 128),
    _summaries(8),
)
_DECIDING = (CASES[0], CASES[1], CASES[3])  # which blocks are read, by how many warps
_TINY = (_even(4, 2, 17),)


def run(context: Context) -> None:
    """Time cross-attention by every kernel, then self-attention by ours and its plain twin."""
    spin(context.device)
    cases = context.pick(CASES, _TINY)
    _each(context, cases, _rivals)
    for rows, heads, position in context.pick(((64, 8, 16), (128, 16, 64)), ((4, 2, 5),)):
        _self_attention(context, rows, heads, position)
    if context.is_gpu:
        _each(context, context.pick(_DECIDING, ()), _variants)
        # Last, since a private operator might end the process.
        _each(context, cases, lambda _, inputs: {"flash": _flash(inputs)})


def _each(
    context: Context,
    cases: Sequence[Case],
    kernels: Callable[[Context, Inputs], dict[str, Attend]],
) -> None:
    """Measure kernels over inputs of each case, while there is time."""
    for case in cases:
        inputs = _inputs(context, case)
        for name, attend in kernels(context, inputs).items():
            if context.has_time(2):
                _measure(context, inputs, name, attend)


def _measure(context: Context, inputs: "Inputs", name: str, attend: Attend) -> None:
    """Record a kernel's time, or why it cannot run: one that fails must not end the stage."""
    limit = inputs.case.read_bytes / H100.bytes_per_s
    told = f"{inputs.case.name}, {name}"

    def all_of_them() -> None:
        for keys, values in inputs.caches:
            attend(keys, values)

    try:
        seconds = median_s(replayable(all_of_them, context.device), context.device)
    except (RuntimeError, TypeError, AttributeError) as error:
        context.records.add("cross-attention", None, case=told, reason=str(error).splitlines()[0])
        return
    seconds /= len(inputs.caches)
    context.records.add(
        "cross-attention",
        seconds * 1e6,
        "us",
        case=told,
        share=limit / seconds,
        limit_us=limit * 1e6,
    )


def _inputs(context: Context, case: Case) -> Inputs:
    shape = (case.rows + 1, case.heads, case.capacity, _HEAD_DIM)
    held = 2 * 2 * case.rows * case.heads * case.capacity * _HEAD_DIM
    count = context.pick(max(2, min(64, round(_CACHE_BYTES / held))), 2)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, device=context.device).half()

    return Inputs(
        case,
        [(drawn(*shape), drawn(*shape)) for _ in range(count)],
        drawn(case.rows, case.heads * _HEAD_DIM),
        states.integers([*case.lengths, 0], context.device),
    )


def _rivals(context: Context, inputs: Inputs) -> dict[str, Attend]:
    """Return every public kernel that could run here, ours first."""
    fused = machines.operations(context)
    found = {} if fused.cross_attend is plain.cross_attend else {"triton": _ours(fused, inputs)}
    found |= {_PLAIN: _ours(plain.OPERATIONS, inputs), "bmm": _products(inputs)}
    if not context.is_gpu:
        return found | {"math": _pinned(SDPBackend.MATH, inputs)}
    return found | {
        "efficient": _pinned(SDPBackend.EFFICIENT_ATTENTION, inputs),
        "cudnn": _pinned(SDPBackend.CUDNN_ATTENTION, inputs),
    }


def _ours(chosen: Operations, inputs: Inputs) -> Attend:
    rows = inputs.case.rows
    each = states.integers([*range(rows + 1)], inputs.query.device)
    index = (each[:rows], each, inputs.lengths, torch.ones_like(each))
    return lambda keys, values: chosen.cross_attend(inputs.query, keys, values, *index, _SCALE)


def _variants(context: Context, inputs: Inputs) -> dict[str, Attend]:
    """Return our kernel by how much is read at once, by how many warps, and how far ahead."""
    if machines.operations(context).cross_attend is plain.cross_attend:
        return {}
    from model.captured import fused

    each = states.integers([*range(inputs.case.rows + 1)], inputs.query.device)
    index = (each[:-1], each, inputs.lengths, torch.ones_like(each), _SCALE)

    def variant(block: int, warps: int, stages: int) -> Attend:
        return lambda keys, values: fused.cross_attend(
            inputs.query, keys, values, *index, block=block, warps=warps, stages=stages
        )

    tried = [(block, warps, 1) for block in (64, 32, 128) for warps in (4, 2, 8)]
    tried += [(64, 4, 3)] if inputs.case.rows * inputs.case.heads < 132 else []
    return {f"triton, {b} x {w} x {s}": variant(b, w, s) for b, w, s in tried}


def _mask(inputs: Inputs) -> Tensor:
    """Return [rows, 1, 1, capacity]: what is added to scores."""
    steps = torch.arange(inputs.case.capacity, device=inputs.query.device)
    beyond = steps >= inputs.lengths[:-1, None]
    mask = torch.zeros(beyond.shape, device=steps.device).masked_fill(beyond, float("-inf"))
    return mask.half()[:, None, None]


def _products(inputs: Inputs) -> Attend:
    """Two products with a softmax between; padding is read, too."""
    mask, rows = _mask(inputs), inputs.case.rows
    query = inputs.query.view(rows, -1, 1, _HEAD_DIM)

    def attend(keys: Tensor, values: Tensor) -> Tensor:
        scores = query @ keys[:rows].transpose(2, 3) * _SCALE + mask
        return scores.softmax(3) @ values[:rows]

    return attend


def _pinned(backend: SDPBackend, inputs: Inputs) -> Attend:
    """PyTorch's own attention, by one of its kernels; padding is read, too."""
    mask, rows = _mask(inputs), inputs.case.rows
    query = inputs.query.view(rows, -1, 1, _HEAD_DIM)

    def attend(keys: Tensor, values: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(query, keys[:rows], values[:rows], mask)

    return attend


def _flash(inputs: Inputs) -> Attend:
    """PyTorch's private operator with lengths on the device, over caches as they are."""
    case, device = inputs.case, inputs.query.device
    a_slot = case.heads * case.capacity  # positions of one head from a slot to the next
    ends = torch.arange(case.rows + 1, dtype=torch.int32, device=device)
    query = inputs.query.view(case.rows, case.heads, _HEAD_DIM)
    size = (case.rows * a_slot + case.capacity, case.heads, _HEAD_DIM)
    stride = (_HEAD_DIM, case.capacity * _HEAD_DIM, 1)
    begins, longest, lengths = ends * a_slot, case.capacity, inputs.lengths[:-1]

    def attend(keys: Tensor, values: Tensor) -> object:
        packed = (keys.as_strided(size, stride), values.as_strided(size, stride))
        return torch.ops.aten._flash_attention_forward(
            query,
            *packed,
            ends,
            begins,
            1,
            longest,
            0.0,
            False,
            False,
            scale=_SCALE,
            seqused_k=lengths,
        )

    return attend


def _self_attention(context: Context, rows: int, heads: int, position: int) -> None:
    """Record the time of appending to slots and attending to them, fused and plain."""
    device, capacity = context.device, -(-(position + 1) // 16) * 16
    shape = (rows + 1, heads, capacity, _HEAD_DIM)
    keys, values = (torch.randn(shape, device=device).half() for _ in range(2))
    qkv = torch.randn(rows, 3 * heads * _HEAD_DIM, device=device).half()
    each = states.integers([*range(rows + 1)], device)
    own = each[:, None].expand(-1, capacity).contiguous()
    index = (each[:rows], torch.full_like(each, position), torch.ones_like(each), own, None)
    for name, chosen in {_PLAIN: plain.OPERATIONS, "triton": machines.operations(context)}.items():
        if name != _PLAIN and chosen.append_attend is plain.append_attend:
            continue

        def attend(chosen: Operations = chosen) -> None:
            chosen.append_attend(qkv, keys, values, *index, _SCALE)

        seconds = median_s(replayable(attend, device), device)
        case = f"{rows} x {heads} x {position}, {name}"
        context.records.add("self-attention", seconds * 1e6, "us", case=case)
